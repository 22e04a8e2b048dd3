"""How much each latent dimension is used, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import OTHER, VAE, new_figure, save
from pipeline.tables.statistics import Array

NAMED = 48  # dimensions at most whose numbers are written


class Measure(NamedTuple):
    """What is shown of a dimension, and below what it is drawn as not in use."""

    title: str
    unit: str
    least: float


MEASURES = {
    "kl": Measure("KL of each latent dimension by epoch", "nats", 0.005),  # as if of a variance of 0.01
    "mean_variance": Measure("Variance of the posterior mean of each latent dimension by epoch", "variance", 0.01),
}


def latent_usage(latents: pd.DataFrame, best_epoch: int, path: Path) -> None:
    """A row for each dimension, the one used most at the kept epoch on top: its epochs as colours, and the kept one as a bar.

    Args:
        latents: The content of latents.csv: a row per epoch, of kl_k or mean_variance_k.
        best_epoch: The epoch that was kept.
        path: Where to write the PNG.
    """
    columns, epochs = latents.columns.drop("epoch"), list(latents["epoch"])
    measure, values = MEASURES[columns[0].rpartition("_")[0]], latents[columns].to_numpy().T
    kept = values[:, epochs.index(best_epoch)]
    order = np.argsort(-kept, kind="stable")
    figure, axes = new_figure(11, min(7.5, 2 + 0.17 * len(order)), 1, 2, sharey=True, width_ratios=[3, 1])
    by_epoch: Axes = axes[0, 0]
    _epochs(by_epoch, values[order], epochs, measure)
    by_epoch.axvline(best_epoch, color="black", linewidth=1, linestyle=":")
    at_kept: Axes = axes[0, 1]
    used = [VAE if value >= measure.least else OTHER for value in kept[order]]
    at_kept.barh(range(1, len(order) + 1), kept[order], color=used, height=0.8)
    at_kept.set(title=f"at the kept epoch, {best_epoch}", xlabel=measure.unit)
    at_kept.tick_params(axis="y", length=0, labelleft=False)
    if len(order) <= NAMED:
        by_epoch.set_yticks(range(1, len(order) + 1), [f"z{k + 1}" for k in order], fontsize=8)
    by_epoch.set_ylabel("latent dimension" if len(order) <= NAMED else "latent dimensions, from the one used most")
    save(figure, path)


def _epochs(ax: Axes, values: Array, epochs: list[int], measure: Measure) -> None:
    least = measure.least
    colours = mpl.colormaps["viridis"].with_extremes(under="0.9")
    scale = LogNorm(least, max(values.max(), 10 * least))
    extent = (min(epochs) - 0.5, max(epochs) + 0.5, len(values) + 0.5, 0.5)
    shown = values.clip(least / 10)  # zeros have no logarithm
    picture = ax.imshow(shown, norm=scale, cmap=colours, aspect="auto", interpolation="nearest", extent=extent)
    ax.set(title=measure.title, xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    bar = ax.figure.colorbar(picture, ax=ax, extend="min", location="left", pad=0.02, aspect=30, format="{x:g}")
    bar.set_label(f"{measure.unit} (grey: not in use)")
