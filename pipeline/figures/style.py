"""Figures with the project's look and reproducible bytes: matplotlib's defaults, whatever the user's rc file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

VAE, DATA, OTHER, FAINT, GAP = "#1f6f8b", "#e07a1f", "#7d7d7d", "#c9c9c9", "#d8e4e8"


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure in inches and its array of axes (rows, columns)."""
    mpl.rcdefaults()
    mpl.rcParams.update(
        {"text.parse_math": False, "font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without a time or a version in it."""
    figure.savefig(path, dpi=110, metadata={"Software": None})
