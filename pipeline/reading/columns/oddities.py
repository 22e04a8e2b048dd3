"""What looks odd in the columns of a table, or may have been meant otherwise: codes, values far out, copies, spellings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from operator import add
from typing import Any, NamedTuple

import numpy as np

from pipeline.params.data import Data
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.coding import same_numbers
from pipeline.reading.columns.facts import Facts
from pipeline.reading.columns.guess import DECLARED, Guess, declared_of
from pipeline.reading.columns.looks import likely, said
from pipeline.tables.kinds import LEFT_OUT
from pipeline.tables.statistics import Array, Moments, Range

NEGATIVE_CODES = (-1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0)
POSITIVE_CODES = (99.0, 999.0, 9999.0, 99999.0)
FAR = 10.0  # standard deviations
FEW_LEVELS = 20  # of columns that are compared for other names of the same
MOST_TEXTS_LIKE_NUMBERS = 0.5  # share of the rows, from which texts are suspected to be numbers
LEAST_ROWS = 20  # of a column whose numbers all differ, to be suspected to name the rows
FULL = 2.0  # how many whole numbers there may be to choose from, for each row, if they number the rows
STEPS = 10.0  # of a grid, for each row, up to which it can be seen
WORDS = frozenset(["NA", "None", "NULL", "null"])  # for no value that may be names
TIMES = [(9.4e8 * unit, 4.1e9 * unit) for unit in (1, 1000)]  # of this century, in seconds and milliseconds since 1970
NAMES_ROWS = re.compile(r"(?i)(^|[\W_])(id|index|key|no|nr|number|uid|uuid|pid)$|^unnamed|[a-z]I[Dd]$")


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


class Suspicion(NamedTuple):
    """What may have been meant otherwise.

    Attributes:
        column: Its name.
        what: What is to be seen, and what to do, in words.
        params: What to set in ``data``, as a mapping of its keys.
    """

    column: str
    what: str
    params: Mapping[str, Any]


Rule = Callable[[Facts, Guess, Data], Iterator[Suspicion]]


def suspicions(facts: Sequence[Facts], kinds: Mapping[str, Guess], data: Data) -> Iterator[Suspicion]:
    """What may have been meant otherwise in the columns of a table, in their order."""
    for column in facts:
        for rule in RULES:
            yield from rule(column, kinds[column.name], data)


def several_lines(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Texts that an open quote may have made of several rows."""
    if column.broken:
        yield Suspicion(column.name, f"{column.broken} texts go over several lines: is a quote left open?", {})


def numbers_as_texts(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Numbers with points or signs that are not declared."""
    found = None if column.is_number or guess[1] == DECLARED else likely(column.looks)
    if found is not None and found[1] + column.numbers.count >= MOST_TEXTS_LIKE_NUMBERS * column.observed:
        params, rows = found
        what = (
            f"{rows} of {column.observed} texts, such as {column.odd_examples[0][1]!r}, look like numbers: set {said(params)}"
        )
        yield Suspicion(column.name, what, params)


def leading_zeros(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Fractions that are taken for codes, such as 0034.5."""
    if column.coded and column.pointed[0] and not column.odd and guess[1] != DECLARED:
        example = min(column.levels or [column.first or ""])
        what = f"its numbers have leading zeros, such as {example!r}, and are taken for texts: if they are none, set"
        params = {"columns": {column.name: {"kind": "continuous"}}}
        yield Suspicion(column.name, f"{what} data.columns.{column.name}: {{kind: continuous}}", params)


def words_for_none(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Categories that are called as if they were no value, beside cells that have none."""
    words = sorted(column.none & WORDS - {*map(str, data.missing)})
    if words and len(column.none) > 1 and not column.is_number and guess[0] not in LEFT_OUT:
        what = f"{' and '.join(map(repr, sorted(column.none)))} stand for no value: if {words[0]!r} is a category"
        yield Suspicion(column.name, f"{what}, rename it in the file; if it is none, put it into data.missing", {})


def spellings(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Categories that are one but for their capital letters, spaces, or the form of their accents."""
    if column.is_number or guess[1] == DECLARED or guess[0] in LEFT_OUT:
        return
    plain = {level: " ".join(unicodedata.normalize("NFC", level).split()) for level in sorted(column.levels or ())}
    groups: dict[str, list[str]] = {}
    for level, text in plain.items():
        groups.setdefault(text.casefold(), []).append(level)
    for alike in [group for group in groups.values() if len(group) > 1][:1]:
        capital = len({plain[level] for level in alike}) > 1
        how = "capital letters" if capital else "spaces or the form of accents"
        named = " and ".join(map(repr if capital else ascii, alike))
        what = f"{named} differ in {how} alone, and are different categories"
        yield Suspicion(column.name, f"{what}; write them alike", {})


def points_between_thousands(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """1.234 beside 954."""
    pointed, grouped = column.pointed
    if column.is_number and 1 < pointed == grouped < column.numbers.count and data.thousands is None:
        params = {"decimal": ",", "thousands": "."}
        what = f"all {pointed} numbers with a point have three digits behind it: if it divides thousands, set {said(params)}"
        yield Suspicion(column.name, what, params)


def names_of_rows(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Whole numbers that all differ, or are days, such as 20210115, or times, such as 1609459200."""
    x, free = column.numbers, column.is_number and guess[1] != DECLARED and data.shape is None
    if not free or guess[0] in LEFT_OUT or not x.whole or x.count < LEAST_ROWS:
        return
    params = {"exclude": [column.name]}
    if x.calendar:
        what = f"numbers such as {x.range.least:.0f} look like dates: leave it out with data.exclude"
        yield Suspicion(column.name, what, params)
    elif any(first <= x.range.least and x.range.greatest < last for first, last in TIMES):
        what = f"numbers such as {x.range.least:.0f} look like times since 1970: leave it out with data.exclude"
        yield Suspicion(column.name, what, params)
    elif x.unique and (NAMES_ROWS.search(column.name) or x.range.greatest - x.range.least < FULL * x.count):
        what = "all its numbers differ, as if they named the rows: leave it out with data.exclude"
        yield Suspicion(column.name, what, params)


def one_number(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Categories that are the same number, such as 2.1 and 2.10."""
    if guess[0] == "categorical" and (same := same_numbers(column.levels or ())):
        yield Suspicion(column.name, f"{' and '.join(map(repr, same))} are one number, but two categories", {})


def grid(column: Facts, guess: Guess, data: Data) -> Iterator[Suspicion]:
    """Fractions of which each is a multiple of a step, under a density."""
    x, options = column.numbers, declared_of(column.name, data)
    if guess[0] != "continuous" or options.dequantize or data.dequantize or not x.decimals or not column.is_number:
        return
    step = 10.0**-x.decimals
    if (x.range.greatest - x.range.least) / step < STEPS * x.count:
        what = (
            f"its numbers lie on a grid of {step:g}, where a density is not bounded and samples fall between them: set "
            f"data.columns.{column.name}: {{dequantize: {step:g}}}"
        )
        yield Suspicion(column.name, what, {"columns": {column.name: {"dequantize": step}}})


RULES: tuple[Rule, ...] = (
    several_lines,
    numbers_as_texts,
    leading_zeros,
    words_for_none,
    spellings,
    points_between_thousands,
    names_of_rows,
    one_number,
    grid,
)
