"""Texts as numbers: by the points and signs that are declared, and what texts that are none would be by others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.tables.schema import Reading
from pipeline.tables.statistics import Array

MINUS = "\N{MINUS SIGN}"
SPACES = "[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]"
BELOW_ZERO = {"()": r"^\((.+)\)$", "-": "^(.+)-$"}  # signs that say so: brackets around a number, and a minus behind it
SIGNS = {sign: re.escape(sign) for sign in "%$€£¥"} | {"()": r"^\W*\(.*\)$", "-": r"\d\W*-$"}  # that are looked for
POINTS = ((".", ","), (",", None), (".", " "), (".", "'"), (",", "."), (",", " "))  # (decimal, thousands) that are tried
GROUPED = r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+"  # a number whose points may be those between thousands
WITHOUT_LETTERS = rf"[-+{MINUS}]?[^A-Za-z:/]*\d[^A-Za-z:/]*"

Look = tuple[str, str | None, tuple[str, ...]]  # decimal, thousands and signs by which texts would be numbers


def matching(texts: pa.Array, pattern: str) -> NDArray[np.bool_]:
    """Which texts match a regular expression as a whole."""
    return np.asarray(pc.match_substring_regex(texts, f"^(?:{pattern})$").to_numpy(zero_copy_only=False), dtype=bool)


def containing(texts: pa.Array, part: str) -> NDArray[np.bool_]:
    """Which texts have a part."""
    return np.asarray(pc.match_substring(texts, part).to_numpy(zero_copy_only=False), dtype=bool)


def as_numbers(texts: pa.Array, reading: Reading) -> Array:
    """What each text is as a number, NaN where it is none.

    A number has its thousands, if they are divided, in groups of three everywhere; a point that is not declared makes it none.
    """
    if containing(texts, MINUS).any():
        texts = pc.replace_substring(texts, MINUS, "-")
    below = dict.fromkeys((form for sign, form in BELOW_ZERO.items() if sign in reading.signs), r"-\1")
    others = "|".join(re.escape(sign) for sign in reading.signs if sign not in BELOW_ZERO)
    signs = {rf"^([+-]?)\s*(?:{others})\s*|\s*(?:{others})$": r"\1"} if others else {}
    for form, number in (*below.items(), *signs.items(), *below.items()):  # brackets are around signs or within them
        texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, form, number))
    no_number = np.zeros(len(texts), dtype=bool)
    if (thousands := reading.thousands) is not None:
        texts = pc.replace_substring_regex(texts, SPACES, " ") if thousands == " " else texts
        whole = rf"[+-]?\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+(?:{re.escape(reading.decimal)}\d*)?"
        no_number = containing(texts, thousands) & ~matching(texts, whole)
        texts = pc.replace_substring(texts, thousands, "")
    if reading.decimal != ".":
        no_number |= containing(texts, ".")
        texts = pc.replace_substring(texts, reading.decimal, ".")
    numbers = pd.to_numeric(texts.to_numpy(zero_copy_only=False), errors="coerce")
    return np.where(no_number, np.nan, np.asarray(numbers, dtype=np.float64))


def looks_of(texts: pa.Array, rows: NDArray[np.int64], reading: Reading) -> Counter[Look]:
    """How many rows that hold texts would hold numbers by other points and signs.

    Args:
        texts: The different texts of a column that are no numbers.
        rows: How many rows have each.
        reading: By which they are none.
    """
    like = matching(texts, WITHOUT_LETTERS)
    texts, rows = texts.filter(pa.array(like)), rows[like]
    signs = tuple(sign for sign, form in SIGNS.items() if pc.any(pc.match_substring_regex(texts, form)).as_py())
    looks: Counter[Look] = Counter()
    for decimal, thousands in ((reading.decimal, reading.thousands), *POINTS) if len(texts) else ():
        other = Reading(decimal=decimal, thousands=thousands, signs=[*reading.signs, *signs])
        if count := int(rows[~np.isnan(as_numbers(texts, other))].sum()):
            looks[decimal, thousands, signs] = count
    return looks


def likely(looks: Counter[Look]) -> tuple[dict[str, object], int] | None:
    """The params by which most texts would be numbers, and how many; of equals those that change least."""
    if not looks:
        return None
    merged: Counter[tuple[str, str | None]] = Counter()
    for (decimal, thousands, _), rows in looks.items():
        merged[decimal, thousands] += rows
    (decimal, thousands), rows = merged.most_common(1)[0]
    signs = sorted({sign for look in looks for sign in look[2]})
    params = {"decimal": decimal if decimal != "." else None, "thousands": thousands, "signs": signs or None}
    return {name: value for name, value in params.items() if value is not None}, rows


def said(params: Mapping[str, object]) -> str:
    """Params as they stand in params.yaml, for a message."""
    return " and ".join(f"data.{name}: {value!r}" for name, value in params.items())
