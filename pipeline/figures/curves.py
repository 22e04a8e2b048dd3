"""Learning curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.figures.style import DATA, OTHER, VAE, new_figure, save

TITLES = {
    "elbo": "ELBO = reconstruction - KL",
    "reconstruction": "reconstruction  E[log p(y|z)]",
    "kl": "KL  E[log q(z|y) - log p(z)]",
}


def learning_curves(history: pd.DataFrame, best_epoch: int, path: Path, unit: str) -> None:
    """ELBO, reconstruction and KL by epoch, on training and validation rows, with the kept epoch; log p is in ``unit``."""
    figure, axes = new_figure(11, 3.4, 1, 3)
    for ax, (name, title) in zip(axes[0], TITLES.items(), strict=True):
        for split, colour in (("train", VAE), ("valid", DATA)):
            ax.plot(history["epoch"], history[f"{split}_{name}"], color=colour, label=f"{split} rows")
        ax.axvline(best_epoch, color=OTHER, linewidth=1, linestyle=":", label=f"kept: epoch {best_epoch}")
        ax.set(title=title, xlabel="epoch", ylabel="nats per example" if name == "kl" else unit)
        # the first epochs are far off and would flatten the rest
        tail = history.loc[history["epoch"] >= len(history) // 20, [f"train_{name}", f"valid_{name}"]]
        low, high = tail.min().min(), tail.max().max()
        ax.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    axes[0, 0].legend(frameon=False, loc="lower right")
    save(figure, path)
