"""Samples, reconstructions and the latent space: images where a row is an image, histograms and scatters otherwise."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.figures.pixels import ImageGrid
from pipeline.figures.style import DATA, VAE, new_figure, save
from pipeline.tables.schema import Column, Schema, number_text
from pipeline.tables.statistics import Array


class SampleGrids(ImageGrid):
    """The pictures of the generate stage."""

    def sample_grid(self, samples: Array, path: Path) -> None:
        """The first samples (N, D)."""
        side = min(10, int(len(samples) ** 0.5))
        self.grid(samples[: side * side].reshape(side, side, -1), "Samples from the model: y ~ p(y|z), z ~ p(z)", path)

    def reconstructions(self, originals: Array, means: Array, path: Path) -> None:
        """Test images (N, D) above their reconstructions f_w(E[z|y])."""
        labels = ["test image", "reconstruction"]
        self.grid(np.stack([originals, means]), "Test images and their reconstructions", path, labels)

    def traversal(self, means: Array, labels: list[str], path: Path) -> None:
        """f_w(z), (dimensions, steps, D): one latent dimension varies along each row, the others are 0."""
        title = "Mean image as one latent coordinate goes from -3 to 3\n(others at 0; sd: of posterior means over test rows)"
        self.grid(means, title, path, labels)

    def latent_plane(self, means: Array, path: Path) -> None:
        """f_w(z) over a grid of a two-dimensional latent space, means (side, side, D)."""
        self.grid(means, "The mean image over the latent plane: z1 from -3 to 3 rightwards, z2 upwards", path)


def latent_scatter(means: Array, labels: tuple[str, str], path: Path) -> None:
    """Posterior means of the test rows (N, 2), with the prior's two-sigma circle."""
    figure, axes = new_figure(4.6, 4.4)
    ax: Axes = axes[0, 0]
    ax.scatter(means[:, 0], means[:, 1], s=8, color=VAE, alpha=0.6, label="posterior means of test rows")
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(2 * np.cos(angle), 2 * np.sin(angle), color=DATA, linewidth=1, label="prior, two standard deviations")
    ax.set(title="Test rows in the two latent dimensions used most", xlabel=labels[0], ylabel=labels[1], aspect="equal")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    save(figure, path)


def marginals(data: pd.DataFrame, samples: pd.DataFrame, schema: Schema, path: Path, most: int = 16) -> None:
    """Histograms of test data and samples for the first columns; bars for categories."""
    shown = schema.columns[:most]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = new_figure(2.7 * columns + 0.4, 2.1 * rows + 0.6, rows, columns)
    for ax, column in zip(axes.flat, shown, strict=False):
        tables = data[column.name].dropna(), samples[column.name].dropna()
        (_bars if column.categories else _histogram)(ax, *tables, column)
        ax.set(title=column.name, yticks=[])
        ax.set_xlabel(schema.units if not column.categories else "", fontsize=7)
        ax.set_ylabel("share", fontsize=7)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=7)
    note = "" if len(shown) == len(schema.columns) else f" (the first {len(shown)} of {len(schema.columns)} columns)"
    figure.suptitle(f"Samples beside test data{note}", fontsize=11)
    save(figure, path)


def _histogram(ax: Axes, data: pd.Series, samples: pd.Series, column: Column) -> None:
    """About 30 bins over all test data and all but the outermost thousandth of samples; whole ones for whole numbers."""
    shown = data.to_numpy() if len(data) else samples.to_numpy()
    low, high = np.quantile(samples.to_numpy(), [0.001, 0.999])
    low, high = min(low, shown.min()), max(high, shown.max())
    edges = np.linspace(low, high, 31)
    if np.issubdtype(shown.dtype, np.integer):
        step = max(1, round((high - low) / 30))
        edges = np.arange(np.floor(low), high + step + 1, step) - 0.5
    for values, colour, label in ((data, DATA, "test rows"), (samples, VAE, "samples")):
        weight = np.full(len(values), 1 / max(1, len(values)))  # a column that no test row has is an empty histogram
        ax.hist(values.to_numpy(dtype=float), edges.tolist(), weights=weight, histtype="step", color=colour, label=label)


def _bars(ax: Axes, data: pd.Series, samples: pd.Series, column: Column) -> None:
    categories = column.categories or []
    at = np.arange(len(categories))
    for values, colour, label, offset in ((data, DATA, "test rows", -0.2), (samples, VAE, "samples", 0.2)):
        texts = values.map(number_text) if column.numeric else values
        shares = texts.value_counts(normalize=True).reindex(categories, fill_value=0)
        ax.bar(at + offset, shares, width=0.4, color=colour, label=label)
    ax.set_xticks(at, [text[:12] for text in categories], rotation=45, ha="right", fontsize=6)


def pairs(data: pd.DataFrame, samples: pd.DataFrame, path: Path, most: int = 5) -> None:
    """Neighbouring columns against each other: test rows and as many samples."""
    names, rows = list(data.columns[:most]), min(len(data), len(samples))
    couples = list(pairwise(names))
    data = data.sample(rows, random_state=0)  # not the first, as a file may be in some order
    figure, axes = new_figure(3 * len(couples) + 0.3, 3.2, 1, len(couples))
    for ax, (x, y) in zip(axes[0], couples, strict=True):
        for table, colour, label in ((data, DATA, "test rows"), (samples[:rows], VAE, "samples")):
            ax.scatter(table[x], table[y], s=6, alpha=0.5, color=colour, label=label)
        ax.set(xlabel=x, ylabel=y)
    axes[0, 0].legend(frameon=False)
    shown = "" if len(names) == len(data.columns) else f" (the first {len(names)} of {len(data.columns)} columns)"
    figure.suptitle(f"Samples beside test data, in pairs of columns{shown}", fontsize=11)
    save(figure, path)
