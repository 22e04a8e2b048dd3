"""What looks odd in the columns of a table: codes for missing values, values far out, and columns that repeat others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.facts import Facts
from pipeline.tables.statistics import Array, Moments, Range

NEGATIVE_CODES = (-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0)
POSITIVE_CODES = (99.0, 999.0, 9999.0, 99999.0)
FAR = 10.0  # standard deviations
FEW_LEVELS = 20  # of columns that are compared for other names of the same


@dataclass(frozen=True)
class Extremes:
    """How often the least and the greatest value are there, and what lies between them; adds up over blocks."""

    least: int = 0
    greatest: int = 0
    between: Range = field(default_factory=Range)
    moments: Moments = field(default_factory=Moments)

    @classmethod
    def of(cls, x: Array, ends: Range) -> Extremes:
        """Of a block of a column whose values have these ends."""
        low, high = x == ends.least, x == ends.greatest
        between = x[~(low | high | np.isnan(x))]
        return cls(int(low.sum()), int(high.sum()), Range.of(between), Moments.of(between))

    def __add__(self, other: Extremes) -> Extremes:
        between, moments = self.between + other.between, self.moments + other.moments
        return Extremes(self.least + other.least, self.greatest + other.greatest, between, moments)


def odd_values(facts: Facts, found: Extremes) -> Iterator[str]:
    """What to look at in a column of numbers."""
    ends, between = facts.numbers.range, found.between
    if not found.moments.count:
        return
    if ends.least in NEGATIVE_CODES and found.least > 1 and between.least >= 0:
        yield f"{ends.least:g} in {found.least} rows: data.missing?"
    elif ends.greatest in POSITIVE_CODES and found.greatest > 1 and ends.greatest > 2 * between.greatest:
        yield f"{ends.greatest:g} in {found.greatest} rows: data.missing?"
    for value in (ends.least, ends.greatest):
        distance = abs(value - found.moments.mean) / (found.moments.std or np.inf)
        if distance > FAR and value not in (*NEGATIVE_CODES, *POSITIVE_CODES):
            yield f"{value:g} is {distance:.0f} standard deviations out"


class Copies:
    """Pairs of columns of which one says what the other says, under the same or other names, as far as the blocks go.

    Args:
        facts: Of all columns.
    """

    def __init__(self, facts: Sequence[Facts]) -> None:
        self._facts = facts
        self._pairs = [pair for pair in combinations(range(len(facts)), 2) if self._may_be(*pair)]
        self._names: dict[tuple[int, int], dict[object, object]] = {pair: {} for pair in self._pairs}

    def add(self, block: Block) -> None:
        """Drop the pairs that differ in a block."""
        columns = {column for pair in self._pairs for column in pair}
        held = {column: self._values(block, column) for column in columns}
        self._pairs = [pair for pair in self._pairs if self._agree(pair, *(held[column] for column in pair))]

    @property
    def found(self) -> list[tuple[str, str]]:
        """The names of the pairs that are left."""
        return [(self._facts[one].name, self._facts[other].name) for one, other in self._pairs]

    def _may_be(self, one: int, other: int) -> bool:
        first, second = self._facts[one], self._facts[other]
        if first.missing != second.missing or not _varies(first):
            return False
        levels = _few_levels(first)
        return levels == _few_levels(second) and (levels > 0 or (first.is_number and first.numbers == second.numbers))

    def _values(self, block: Block, column: int) -> np.ndarray:
        facts = self._facts[column]
        if not _few_levels(facts):
            return block.numbers(column)
        codes, levels = block.texts(column, numeric=facts.is_number)
        return np.array([*levels, ""], dtype=object)[codes]

    def _agree(self, pair: tuple[int, int], one: np.ndarray, other: np.ndarray) -> bool:
        if one.dtype != object:
            return bool(np.array_equal(one, other, equal_nan=True))
        names = self._names[pair]
        for key, value in set(zip(one.tolist(), other.tolist(), strict=True)):
            if names.setdefault(key, value) != value:
                return False
        return len(set(names.values())) == len(names)


def _varies(facts: Facts) -> bool:
    return facts.numbers.range.least < facts.numbers.range.greatest if facts.is_number else _few_levels(facts) > 1


def _few_levels(facts: Facts) -> int:
    """Number of different values, if they are few; otherwise 0."""
    held = facts.numbers.distinct if facts.is_number else facts.levels
    return len(held) if held is not None and len(held) <= FEW_LEVELS else 0
