"""Held-out log-likelihoods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.figures.style import DATA, FAINT, OTHER, VAE, new_figure, save


def likelihood_comparison(rows: dict[str, tuple[float, float]], differences: pd.DataFrame, path: Path, unit: str) -> None:
    """Mean log-likelihoods with their standard errors, and by how much each test example prefers the VAE.

    Args:
        rows: Mean and standard error by label; the labels that start with VAE are coloured as such.
        differences: log p under the VAE minus log p under each baseline, one column per baseline.
        path: Where to write the PNG.
        unit: Of log p.
    """
    figure, axes = new_figure(11, 3.6, 1, 2)
    left, right = axes[0]
    for position, (label, (mean, error)) in enumerate(reversed(rows.items())):
        colour = VAE if label.startswith("VAE") else OTHER
        left.errorbar(mean, position, xerr=error, fmt="o", color=colour, capsize=3)
        left.annotate(f"{mean:.2f} ± {error:.2f}", (mean, position), (0, 7), textcoords="offset points", ha="center")
    left.set(title="Test log-likelihood", xlabel=f"{unit}, ± one standard error over examples")
    left.set_yticks(range(len(rows)), list(reversed(rows)))
    left.margins(x=0.12, y=0.15)
    left.grid(axis="x", color=FAINT, linewidth=0.5)
    low, high = np.quantile(differences.to_numpy(), [0.005, 0.995])
    for name, colour in zip(differences.columns, (OTHER, DATA), strict=False):
        right.hist(
            differences[name].clip(low, high),
            bins=40,
            range=(low, high),
            histtype="step",
            color=colour,
            label=f"VAE minus {name}",
        )
    right.axvline(0, color="black", linewidth=0.8)
    right.set(
        title="Which model each test example prefers",
        xlabel="difference in nats (right of 0: the VAE)\noutermost 0.5 % in the end bins",
        ylabel="examples",
    )
    right.legend(frameon=False, fontsize=7, loc="upper right")
    save(figure, path)
