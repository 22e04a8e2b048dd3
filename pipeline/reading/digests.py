"""Digests of what rows are split by: of ids, in their one form, as 7, 7.0, 07 and " 7" are the same, and of rows' content.

None depends on the block, on other rows, or on the type that the file has for a column: a row that comes again is known again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reading.columns.blocks import MISSING, Cells, Texts
from pipeline.reading.columns.coding import TRUTHS
from pipeline.tables.schema import Reading
from pipeline.tables.statistics import Array

DIGITS = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
SCIENTIFIC = re.compile(r"[+-]?[0-9](?:\.[0-9]+)?e[+-][0-9]{2,3}")  # as programs write very large and small numbers
MIDNIGHT = " 00:00:00"
MANTISSA = 53  # bits of a float64

Digests = NDArray[np.uint64]


def canonical(text: str) -> str:
    """The one form of an id: of a number without needless zeros and signs, digit by digit; others as they are."""
    text = text.strip()
    if SCIENTIFIC.fullmatch(text):
        text = format(Decimal(text), "f")
    if not DIGITS.fullmatch(text):
        return text
    whole, _, part = text.lstrip("+-").partition(".")
    number = ".".join(filter(None, (whole.lstrip("0") or "0", part.rstrip("0"))))
    return f"-{number}" if text.startswith("-") and number != "0" else number


def id_digests(values: pd.Series, missing: Sequence[str | float]) -> tuple[Digests, NDArray[np.bool_]]:
    """A digest of each id of a column, whatever the block and the type that the file has for it, and which rows have none.

    Args:
        values: The column.
        missing: Values that stand for none, beside those that always do.
    """
    codes, levels = pd.factorize(values)
    names = [canonical(str(level).removesuffix(MIDNIGHT)) for level in levels.tolist()]
    none = MISSING | {canonical(str(code)) for code in missing}
    lacking = np.array([*(name in none for name in names), True])
    digests = pd.util.hash_array(np.array(names, dtype=object), categorize=False)
    return np.append(digests, np.uint64(0))[codes], lacking[codes]


def cell_digests(name: str, numbers: Array, texts: Texts | None) -> Digests:
    """A digest of each cell of a column: of its number where it has one, otherwise of its text.

    Truth values in texts are 0 and 1, and midnight is no part of a day, as where a format has types for them.

    Args:
        name: The column's.
        numbers: NaN where there is none.
        texts: None where all are numbers or missing.
    """
    if texts is not None:
        truths = np.array([*(TRUTHS.get(level, np.nan) for level in texts.levels), np.nan])
        numbers = np.where(np.isnan(numbers), truths[texts.codes], numbers)
    is_number = ~np.isnan(numbers)
    cells = pd.util.hash_array(np.where(is_number, numbers + 0.0, np.nan))  # -0.0 is 0.0
    if texts is not None:
        words = pd.util.hash_array(
            np.array([*(level.removesuffix(MIDNIGHT) for level in texts.levels), ""], dtype=object), categorize=False
        )
        cells = np.where(is_number | (texts.codes < 0), cells, words[texts.codes])
    return _mixed(cells, pd.util.hash_array(np.array([name], dtype=object)))


def content_digests(frame: pd.DataFrame, first: int, reading: Reading) -> Digests:
    """A digest of each row of a block that begins at row ``first``, whatever the order of the columns."""
    total = np.zeros(len(frame), dtype=np.uint64)
    for name in frame:
        cells = Cells.of(frame[name], first, reading)
        total += cell_digests(str(name), cells.numbers, cells.texts)
    return total


def uniform(digests: Digests, seed: int) -> Array:
    """A number in [0, 1) for each digest, and for each seed another."""
    bits = _mixed(digests, pd.util.hash_array(np.array([seed], dtype=np.uint64)))
    return (bits >> np.uint64(64 - MANTISSA)) * 2.0**-MANTISSA


def _mixed(digests: Digests, salt: Digests) -> Digests:
    return np.asarray(pd.util.hash_array(digests ^ salt), dtype=np.uint64)
