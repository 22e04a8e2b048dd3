"""Rows as people hold them, in lists, arrays, masked arrays and data frames, as arrays of numbers; NaN stands for no value.

Data frames are known by what they can do, so that no library of them is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

NUMERIC = "biuf"  # kinds of dtypes
REMEDY = "give texts and categories numbers, and convert the rest with astype(float)"


def names_of(y: Any) -> list[Any] | None:
    """The names of a data frame's columns; None for what is none."""
    return list(y.columns) if hasattr(y, "columns") and hasattr(y, "to_numpy") else None


def names_to_keep(y: Any) -> tuple[str, ...] | None:
    """The names that tell a data frame's columns apart; None where they do not, as numbers do that only count."""
    names = names_of(y) or []
    told_apart = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    return tuple(names) or None if told_apart else None


def in_order(y: Any, known: Sequence[str] | None, name: str) -> Any:
    """``y`` with its columns in the order of the ``known`` ones, where it is a data frame and these are known.

    Raises:
        ValueError: If it has others.
    """
    names = names_of(y)
    if names is None or known is None or names == list(known):
        return y
    if len(names) == len(known) and set(names) == set(known):
        return y[list(known)]
    lacks, adds = ([*filter(lambda one: one not in there, here)] for here, there in ((known, names), (names, known)))
    lists = ((f"{what} {', '.join(map(repr, some[:3]))}", some) for what, some in (("lacks", lacks), ("adds", adds)))
    odd = " and ".join(text for text, some in lists if some) or "has one of them twice"
    raise ValueError(
        f"{name} must have the columns that the model was fitted to, in any order; it {odd}; name them as in training, or, if "
        f"they are these in this order, give {name}.to_numpy()"
    )


def as_numbers(y: Any, name: str) -> Numbers:
    """``y`` as an array that torch takes: of numbers, of this machine's byte order; masked and NA values are NaN.

    Raises:
        ValueError: If something is no number, or rows are of different lengths.
    """
    if names_of(y) is not None:
        return native(of_frame(y, name))
    if isinstance(y, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in y):
        y = np.ma.stack(y)
    try:
        array = np.asanyarray(y)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one length; got a list of several") from error
    if array.dtype.kind not in NUMERIC:
        held = f"{array.ravel()[0]!r}, in an array of {array.dtype}" if array.size else f"an array of {array.dtype}"
        raise ValueError(f"{name} must be numbers; got {held}: {REMEDY}")
    if isinstance(array, np.ma.MaskedArray) and np.ma.getmaskarray(array).any():
        array = np.ma.filled(array.astype(np.float64), np.nan)
    return native(np.asarray(array))


def of_frame(frame: Any, name: str) -> Numbers:
    """The numbers of a data frame.

    Raises:
        ValueError: If a column has others.
    """
    for column, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if getattr(dtype, "kind", "f") not in NUMERIC:
            raise ValueError(f"{name} must be numbers; its column {column!r} holds {dtype}: {REMEDY}, or leave it out")
    array = np.asarray(frame)
    return frame.to_numpy(dtype=np.float64, na_value=np.nan) if array.dtype == object else array


def native(array: Numbers) -> Numbers:
    """An array of this machine's byte order and of at most eight bytes a number, row after row."""
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    array = array.astype(dtype, copy=False)
    is_plain = array.flags.c_contiguous and min(array.strides, default=0) >= 0  # a single row has any strides
    return array if is_plain else array.copy(order="C")
