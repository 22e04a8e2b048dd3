"""Pictures of the estimators: the ladder, the checks behind the verdict, and the extreme test rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from pipeline.figures.pixels import ImageGrid
from pipeline.figures.style import DATA, FAINT, OTHER, VAE, new_figure, save
from pipeline.tables.statistics import Array
from vae.evidence.verdict.rules import LEAST_ACCEPTANCE

LEVELS = {"annealed": (VAE, "-"), "exact": ("black", "-"), "elbo": (OTHER, "--")}
MOST_COLUMNS, WIDE_COLUMNS = 40, 16


def estimates_by_samples(
    importance: pd.DataFrame, prior: pd.DataFrame, levels: Mapping[str, tuple[str, Mapping[str, float]]], path: Path, unit: str
) -> None:
    """Estimates against the number of samples S, all of them and the upper part of the picture again.

    Args:
        importance: samples, mean, standard_error of importance sampling.
        prior: The same of prior sampling.
        levels: Label and entry (mean, standard_error) of what has no S: annealed, exact, elbo.
        path: Where to write the PNG.
        unit: Of log p.
    """
    figure, axes = new_figure(11, 4.2, 1, 2)
    for ax in axes[0]:
        for table, colour, label in ((importance, DATA, "importance sampling"), (prior, OTHER, "prior sampling")):
            if len(table):
                ax.errorbar(
                    table["samples"],
                    table["mean"],
                    yerr=table["standard_error"],
                    fmt="o-",
                    color=colour,
                    capsize=3,
                    markersize=4,
                    label=label,
                )
        for name, (label, entry) in levels.items():
            colour, style = LEVELS[name]
            ax.axhline(entry["mean"], color=colour, linestyle=style, linewidth=1.2, label=f"{label}: {entry['mean']:.2f}")
            low, high = (entry["mean"] + sign * entry["standard_error"] for sign in (-1, 1))
            ax.axhspan(low, high, color=colour, alpha=0.08, linewidth=0)
        ax.set(xscale="log", xlabel="samples S per example")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.grid(color=FAINT, linewidth=0.5)
    axes[0, 0].set(title="Test log-likelihood by estimator", ylabel=f"{unit}, ± one standard error over examples")
    axes[0, 1].set_title("The same, without the worst of prior sampling")
    axes[0, 1].set_ylim(*_upper_part(importance, prior, levels))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, path)


def _upper_part(importance: pd.DataFrame, prior: pd.DataFrame, levels: Mapping[str, Any]) -> tuple[float, float]:
    entries = [*importance.to_dict("records"), *prior.tail(1).to_dict("records"), *(entry for _, entry in levels.values())]
    low = min(entry["mean"] - entry["standard_error"] for entry in entries)
    high = max(entry["mean"] + entry["standard_error"] for entry in entries)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def differences_and_acceptance(
    gaps: Array | None, checked: Mapping[str, tuple[float, float]], tolerance: float, acceptance: list[float], path: Path
) -> None:
    """What the verdict rests on: the bounds on simulated rows, the checks against their limit, the acceptance rates.

    Args:
        gaps: Upper minus lower bound per simulated row; None where they were not asked for.
        checked: Mean and standard error by label.
        tolerance: Within which they should lie, two standard errors included.
        acceptance: Mean acceptance rate by range of temperatures.
        path: Where to write the PNG.
    """
    figure, axes = new_figure(12, 3.6, 1, 3)
    _gaps(axes[0, 0], gaps)
    _limits(axes[0, 1], checked, tolerance)
    _acceptance(axes[0, 2], acceptance)
    save(figure, path)


def _gaps(ax: Axes, gaps: Array | None) -> None:
    ax.set(title="Upper minus lower bound, simulated rows", xlabel="nats (outermost 1 % in the end bins)", ylabel="rows")
    if gaps is None:
        _absent(ax, "not run: bounds is not\namong evaluate.estimators")
        return
    low, high = np.quantile(gaps, [0.01, 0.99])
    ax.hist(gaps.clip(low, high), bins=30, color=VAE)
    ax.axvline(gaps.mean(), color=DATA, label=f"mean {gaps.mean():+.3f}")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.legend(frameon=False)


def _limits(ax: Axes, checked: Mapping[str, tuple[float, float]], tolerance: float) -> None:
    ax.set(title="Differences that should vanish", xlabel=f"nats per example, ± 2 standard errors; dotted: {tolerance:g}")
    if not checked:
        _absent(ax, "not run: annealed is not\namong evaluate.estimators")
    for position, (mean, error) in enumerate(checked.values()):
        ax.errorbar(mean, -position, xerr=2 * error, fmt="o", color=VAE, capsize=3)
        ax.annotate(
            f"{mean:+.3f} ± {error:.3f}", (mean, -position), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    for limit in (-tolerance, tolerance):
        ax.axvline(limit, color=OTHER, linestyle=":", linewidth=1)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks([-p for p in range(len(checked))], list(checked))
    ax.margins(x=0.15, y=0.3)


def _acceptance(ax: Axes, acceptance: list[float]) -> None:
    ax.set(title="Proposals accepted while annealing", xlabel="range of temperatures, from the start to p(y, z)", ylim=(0, 1))
    if not acceptance:
        _absent(ax, "no transitions")
    ax.plot(range(1, len(acceptance) + 1), acceptance, "o-", color=VAE)
    ax.axhspan(LEAST_ACCEPTANCE, 1, color=VAE, alpha=0.08, linewidth=0)
    ax.set_ylabel(f"share (should be at least {LEAST_ACCEPTANCE})")


def _absent(ax: Axes, why: str) -> None:
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes, color=OTHER)


def extreme_images(images: ImageGrid, rows: Array, log_likelihood: list[Array], path: Path) -> None:
    """The least likely test rows above the most likely, (2, n, D) in raw units, with their log-likelihoods (2, n)."""
    ranges = [
        f"{name}\n{values.min():.0f} to {values.max():.0f}"
        for name, values in zip(("least", "most"), log_likelihood, strict=True)
    ]
    title = f"The {rows.shape[1]} least and most likely test images, log p(y) in nats increasing to the right"
    images.grid(rows, title, path, ranges)


def extreme_rows(parts: Array, values: pd.DataFrame, labels: list[str], path: Path) -> None:
    """The least likely test rows above the most likely, with the values that make them so.

    Args:
        parts: Log p of each value, in some sense, minus its column's median, (2 n, D), the least likely rows first; NaN: gone.
        values: Raw values of these rows; the first 40 columns are shown.
        labels: Of the rows: their place in the file and log p.
        path: Where to write the PNG.
    """
    shown, names = parts[:, :MOST_COLUMNS], list(values.columns)
    width = 0.75 if len(names) <= WIDE_COLUMNS else 0.35
    figure, axes = new_figure(3.2 + width * max(6, shown.shape[1]), 1.6 + 0.24 * len(parts))
    ax: Axes = axes[0, 0]
    ax.set_facecolor("0.8")  # where a value is missing
    picture = ax.imshow(shown, cmap="RdBu", vmin=-6, vmax=6, aspect="auto", interpolation="nearest")
    ax.axhline(len(parts) / 2 - 0.5, color="black", linewidth=1)
    ax.set_xticks(range(shown.shape[1]), [name[:20] for name in names[:MOST_COLUMNS]], rotation=45, ha="right")
    ax.set_yticks(range(len(parts)), labels, fontsize=7)
    for row, column in np.ndindex(shown.shape) if len(names) <= WIDE_COLUMNS else ():
        text = "" if np.isnan(shown[row, column]) else _short(values.iloc[row, column])
        ax.text(
            column, row, text, ha="center", va="center", fontsize=6, color="white" if abs(shown[row, column]) > 4 else "black"
        )
    note = "" if len(names) <= MOST_COLUMNS else f" (the first {MOST_COLUMNS} of {len(names)} columns)"
    gap = "; grey: missing" if np.isnan(shown).any() else ""
    ax.set_title(f"The least likely test rows (above) and the most likely{note}{gap}")
    figure.colorbar(picture, ax=ax, label="nats of a value above its column's median; red: odd", extend="both")
    save(figure, path)


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)[:12]
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e8 else f"{value:.4g}"
