"""Ids of groups and strata in their one form, however they are written: 7, 7.0, 07 and " 7" are the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reading.columns.blocks import MISSING

DIGITS = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
SCIENTIFIC = re.compile(r"[+-]?[0-9](?:\.[0-9]+)?e[+-][0-9]{2,3}")  # as programs write very large and small numbers
MIDNIGHT = " 00:00:00"


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


def id_digests(values: pd.Series, missing: Sequence[str | float]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
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
