"""Arrays of rows: which of their axes counts the rows, and which are those of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.params.data import COLOURS, LAYOUTS, Data
from pipeline.reading.formats.reader import batch_rows, check_numbers, frame

Part = Callable[[int, slice], NDArray[Any]]  # of an array, by the axis that is cut and where


def axes(path: Path, sizes: Sequence[int], data: Data) -> tuple[int, ...]:
    """The axes of an array in the order rows, height, width, channels, as ``data.layout`` says; as they are without one.

    Axes of one element aside, those of a row must be ``data.shape``, unless the row is flat.

    Raises:
        InputError: If they are not, or the array has not so many axes.
    """
    if data.layout is not None and len(sizes) not in (3, 4):
        raise InputError(
            f"data.layout: {data.layout} is for arrays of 3 or 4 axes, but {path} has the shape {_text(sizes)}; set it to null"
        )
    if data.layout is None and data.shape is None and len(sizes) == 4 and sizes[2] in COLOURS and sizes[3] not in COLOURS:
        raise InputError(
            f"data.layout: the shape of {path}, {_text(sizes)}, looks like height x width x channels x rows; set it to HWCN "
            "if it is, or to NHWC if the first axis counts the rows"
        )
    order = tuple(range(len(sizes))) if data.layout is None else _order(data.layout, len(sizes))
    if not _agrees(sizes, order, data):
        fitting = [name for name in LAYOUTS if len(sizes) in (3, 4) and _agrees(sizes, _order(name, len(sizes)), data)]
        remedy = "mend data.shape, or save the array with these axes"
        remedy = f"set data.layout (of a command: --layout) to {fitting[0]}" if fitting else remedy
        row = _text([sizes[axis] for axis in order[1:]])
        raise InputError(
            f"data.shape: is {data.shape}, but a row of {path}, which has the shape {_text(sizes)}, is {row}; {remedy}"
        )
    return order


def check_picture(path: Path, sizes: Sequence[int], data: Data) -> None:
    """Refuse a picture of another shape than ``data.shape``, even where the number of pixels is the same."""
    if not _agrees([1, *sizes], tuple(range(len(sizes) + 1)), data):
        raise InputError(f"data.shape: is {data.shape}, but {path} is {list(sizes)}; set it to that")


def in_rows(path: Path, sizes: Sequence[int], kind: np.dtype, part: Part, data: Data) -> Iterator[pd.DataFrame]:
    """The rows of an array, so many at a time, of which ``part`` gives some."""
    check_numbers(path, kind)
    if not sizes:
        raise InputError(f"{path}: holds a single number, not rows; give an array of shape (rows, ...)")
    order = axes(path, sizes, data)
    rows = sizes[order[0]]
    size = batch_rows(math.prod(sizes) // max(1, rows))
    for first in range(0, rows, size):
        yield frame(part(order[0], slice(first, min(first + size, rows))).transpose(order))


def _order(layout: str, count: int) -> tuple[int, ...]:
    letters = layout if count == 4 else layout.replace("C", "")
    return tuple(letters.index(letter) for letter in "NHWC" if letter in letters)


def _agrees(sizes: Sequence[int], order: Sequence[int], data: Data) -> bool:
    row = [sizes[axis] for axis in order[1:] if sizes[axis] != 1]
    return data.shape is None or len(row) < 2 or row == [size for size in data.shape if size != 1]


def _text(sizes: Sequence[int]) -> str:
    return f"({', '.join(map(str, sizes))})"
