"""Rows that are images, in grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.figures.style import GAP, new_figure, save
from pipeline.tables.statistics import Array


class ImageGrid:
    """How rows become images.

    Args:
        shape: Height, width and channels, of which there are one or three.
        units: What the values are.
        limits: Values shown white and black; beyond them the scale saturates.
    """

    def __init__(self, shape: tuple[int, int, int], units: str, limits: tuple[float, float]) -> None:
        self.shape, self.units, self.limits = shape, units, limits

    def grid(self, images: Array, title: str, path: Path, row_labels: list[str] | None = None) -> None:
        """Images (rows, columns, D) as one picture; an axes for each would be slow."""
        rows, columns = images.shape[:2]
        height, width = (side + 1 for side in self.shape[:2])
        canvas = np.full((rows, height, columns, width, self.shape[2]), np.nan)
        canvas[:, : height - 1, :, : width - 1] = images.reshape(rows, columns, *self.shape).transpose(0, 2, 1, 3, 4)
        figure, axes = new_figure(0.65 * columns + 1.6, 0.65 * rows * height / width + 0.6)
        ax: Axes = axes[0, 0]
        low, high = self.limits
        picture = canvas.reshape(rows * height, columns * width, -1)[:-1, :-1]
        coloured = self.shape[2] == 3
        if coloured:  # red, green, blue and opacity from 0 to 1; gaps are clear
            gaps = np.isnan(picture).any(axis=-1, keepdims=True)
            shares = np.clip((picture - low) / (high - low), 0, 1)
            picture = np.concatenate([np.where(gaps, 0, shares), ~gaps], axis=-1)
        else:
            picture = picture[..., 0]
        shown = ax.imshow(picture, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        ax.set_facecolor(GAP)
        ax.set(xticks=[], title=title)
        ax.set_yticks([(row + 0.5) * height - 1 for row in range(len(row_labels or []))], row_labels or [])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if not coloured:
            figure.colorbar(shown, ax=ax, label=self.units, shrink=0.8, extend="both")
        save(figure, path)
