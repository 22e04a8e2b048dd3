"""What looks odd in the columns of a table: codes for missing values, values far out, and columns that repeat others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from operator import add
from typing import NamedTuple

import numpy as np

from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.facts import Facts
from pipeline.tables.statistics import Array, Moments, Range

NEGATIVE_CODES = (-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0)
POSITIVE_CODES = (99.0, 999.0, 9999.0, 99999.0)
FAR = 10.0  # standard deviations
FEW_LEVELS = 20  # of columns that are compared for other names of the same


class Extremes(NamedTuple):
    """How often the least and the greatest value are there, and what lies between them; adds up over blocks."""

    least: int = 0
    greatest: int = 0
    between: Range = Range()
    moments: Moments = Moments()

    @classmethod
    def of(cls, x: Array, ends: Range) -> Extremes:
        """What a block of a column, whose values have these ends, adds."""
        low, high = x == ends.least, x == ends.greatest
        between = x[~(low | high | np.isnan(x))]
        return cls(int(low.sum()), int(high.sum()), Range.of(between), Moments.of(between))

    def __add__(self, other: Extremes) -> Extremes:  # type: ignore[override]
        return Extremes(*map(add, self, other))


def odd_values(facts: Facts, extremes: Extremes) -> Iterator[str]:
    """What to look at in a column of numbers."""
    ends, between, moments = facts.numbers.range, extremes.between, extremes.moments
    if not moments.count:
        return
    if ends.least in NEGATIVE_CODES and extremes.least > 1 and between.least >= 0:
        yield f"{ends.least:g} in {extremes.least} rows: data.missing?"
    elif ends.greatest in POSITIVE_CODES and extremes.greatest > 1 and ends.greatest > 2 * between.greatest:
        yield f"{ends.greatest:g} in {extremes.greatest} rows: data.missing?"
    for value in (ends.least, ends.greatest):
        distance = abs(value - moments.mean) / (moments.std or np.inf)
        if distance > FAR and value not in (*NEGATIVE_CODES, *POSITIVE_CODES):
            yield f"{value:g} is {distance:.0f} standard deviations out"


class Copies:
    """Pairs of columns of which one says what the other says, under the same or other names, as far as the blocks go.

    Args:
        facts: What is known of all columns.
    """

    def __init__(self, facts: Sequence[Facts]) -> None:
        self._facts = facts
        varied = [
            (d, column)
            for d, column in enumerate(facts)
            if (column.numbers.range.least < column.numbers.range.greatest if column.is_number else _few_levels(column) > 1)
        ]
        self._pairs = [
            (earlier, later)
            for (earlier, first), (later, second) in combinations(varied, 2)
            if first.missing == second.missing and _few_levels(first) == _few_levels(second)
            if _few_levels(first) or (first.is_number and first.numbers == second.numbers)
        ]
        self._meanings: dict[tuple[int, int], dict[object, object]] = {pair: {} for pair in self._pairs}

    def add(self, block: Block) -> None:
        """Drop the pairs that differ in a block."""
        values: dict[int, np.ndarray] = {}
        for column in {column for pair in self._pairs for column in pair}:
            facts = self._facts[column]
            values[column] = block.numbers(column)
            if _few_levels(facts):
                codes, levels = block.texts(column, numeric=facts.is_number)
                values[column] = np.array([*levels, ""], dtype=object)[codes]
        agreeing = []
        for pair in self._pairs:
            earlier, later = (values[column] for column in pair)
            if earlier.dtype != object:
                agree = np.array_equal(earlier, later, equal_nan=True)
            else:
                meanings, both = self._meanings[pair], set(zip(earlier.tolist(), later.tolist(), strict=True))
                agree = all(meanings.setdefault(key, value) == value for key, value in both)
                agree = agree and len(set(meanings.values())) == len(meanings)
            if agree:
                agreeing.append(pair)
        self._pairs = agreeing

    @property
    def names(self) -> list[tuple[str, str]]:
        """The names of the pairs that are left."""
        return [(self._facts[earlier].name, self._facts[later].name) for earlier, later in self._pairs]


def _few_levels(facts: Facts) -> int:
    """The number of different values, if they are few; otherwise 0."""
    held = facts.numbers.distinct if facts.is_number else facts.levels
    return len(held) if held is not None and len(held) <= FEW_LEVELS else 0
