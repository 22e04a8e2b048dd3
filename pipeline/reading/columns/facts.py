"""What the values of a raw column are, so far: whether they are numbers, texts or dates, and which."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.base.errors import InputError
from pipeline.reading.columns.looks import Look, likely, said
from pipeline.tables.statistics import Array, Range

MOST_LEVELS = 10  # of whole numbers that do not begin at 0, to be levels of an order
MOST_TEXTS = 10_000  # different ones that are kept of a column
FIRST_DAY, LAST_DAY = 19000101, 21001231  # as numbers
MONTHS, DAYS_OF_MONTH = range(1, 13), range(1, 32)
MOST_DECIMALS = 3  # that are looked for
ROUNDING = 1e-11  # of numbers of 64 bits, after some computation
MOST_OFF = 0.01  # steps that rounding may take a number off its grid, for the grid to be seen
NAMED_ROWS = 6  # that an error names


@dataclass(frozen=True)
class Numbers:
    """The numbers of a column in the order of its rows, without the missing ones.

    Attributes:
        count: How many there are.
        range: The least and the greatest.
        whole: Whether all are whole numbers.
        distinct: The different ones in their order; None if they are more than `MOST_LEVELS`.
        ends: The first and the last; None without any.
        counts_up: Whether each is one more than that before.
        infinite: The row of the first that is not finite, and what it is.
        decimals: How many they have at most; None if more than `MOST_DECIMALS`.
        unique: Whether no block of rows has one twice.
        calendar: Whether all may be days, as 20210115 is.
    """

    count: int = 0
    range: Range = field(default_factory=Range)
    whole: bool = True
    distinct: tuple[float, ...] | None = ()
    ends: tuple[float, float] | None = None
    counts_up: bool = True
    infinite: tuple[int, float] | None = None
    decimals: int | None = 0
    unique: bool = True
    calendar: bool = True

    @classmethod
    def of(cls, x: Array, first: int, rounding: float = ROUNDING) -> Numbers:
        """What is to be said of the numbers of a block that begins at row ``first``, that are rounded to this part of them."""
        rows = np.flatnonzero(~np.isnan(x))
        observed = x[rows]
        if not len(observed):
            return cls()
        infinite = [(first + int(rows[at]), float(observed[at])) for at in np.flatnonzero(np.isinf(observed))[:1]]
        whole = bool((observed == np.round(observed)).all())
        with np.errstate(invalid="ignore"):
            counts_up = bool((np.diff(observed) == 1).all())
        # without sorting all, where the first few values tell that there are many
        may_be_few = whole or len(observed) <= MOST_LEVELS or len(np.unique(observed[:1000])) <= MOST_LEVELS
        different = np.unique(observed).tolist() if may_be_few else None
        return cls(
            count=len(observed),
            range=Range.of(observed),
            whole=whole,
            distinct=None if different is None else _few(different),
            ends=(float(observed[0]), float(observed[-1])),
            counts_up=counts_up,
            infinite=infinite[0] if infinite else None,
            decimals=0 if whole else _decimals(observed, rounding),
            unique=different is not None and len(different) == len(observed),
            calendar=whole
            and observed.min() >= FIRST_DAY
            and observed.max() <= LAST_DAY
            and bool(np.isin(observed // 100 % 100, MONTHS).all() and np.isin(observed % 100, DAYS_OF_MONTH).all()),
        )

    def __add__(self, other: Numbers) -> Numbers:
        if not (self.ends and other.ends):
            return self if self.ends else other
        return Numbers(
            count=self.count + other.count,
            range=self.range + other.range,
            whole=self.whole and other.whole,
            distinct=None if None in (self.distinct, other.distinct) else _few({*self.distinct, *other.distinct}),  # type: ignore[misc]
            ends=(self.ends[0], other.ends[1]),
            counts_up=self.counts_up and other.counts_up and other.ends[0] - self.ends[1] == 1,
            infinite=self.infinite or other.infinite,
            decimals=None if None in (self.decimals, other.decimals) else max(self.decimals, other.decimals),  # type: ignore[type-var]
            unique=self.unique and other.unique,
            calendar=self.calendar and other.calendar,
        )


def _decimals(x: Array, rounding: float) -> int | None:
    """How many decimals numbers have, of which one has a fraction; None if more than `MOST_DECIMALS`, or not to be seen."""
    for some in (x[:1000], x):
        scaled = [some * 10.0**places for places in range(1, MOST_DECIMALS + 1)]
        with np.errstate(invalid="ignore"):
            off = [(np.abs(s - np.round(s)), rounding * np.maximum(1, np.abs(s))) for s in scaled]
            on_grid = [bool((distance <= most).all() and most.max() < MOST_OFF) for distance, most in off]
        if True not in on_grid:
            return None
    return on_grid.index(True) + 1


def _few(values: Iterable[float]) -> tuple[float, ...] | None:
    ordered = tuple(sorted(values))
    return ordered if len(ordered) <= MOST_LEVELS else None


@dataclass(frozen=True)
class Facts:
    """What is known of a raw column.

    Attributes:
        name: What the file calls it.
        rows: How many there are.
        missing: How many of them lack it.
        numbers: The values that are numbers.
        typed: Whether the file says that all are numbers.
        coded: Whether one begins with a zero that a number would not have: codes, of which 01 and 1 are not the same.
        padded: Whether it is declared that they are numbers nonetheless.
        odd: How many values are no numbers.
        odd_examples: The row and the text of the first of them.
        none: The texts that stand for no value.
        levels: The different texts; None if they are more than `MOST_TEXTS`.
        first: The first text.
        dated: Whether the file says that all are dates or durations.
        formats: The formats of dates that all texts have.
        looks: How many of the texts would be numbers by other points and signs.
        pointed: How many of the texts are numbers with one point or more, and how many of these might be points between groups
            of three digits.
        broken: How many of the texts go over several lines.
    """

    name: str
    rows: int = 0
    missing: int = 0
    numbers: Numbers = field(default_factory=Numbers)
    typed: bool = False
    coded: bool = False
    padded: bool = False
    odd: int = 0
    odd_examples: tuple[tuple[int, str], ...] = ()
    none: frozenset[str] = frozenset()
    levels: frozenset[str] | None = frozenset()
    first: str | None = None
    dated: bool = False
    formats: frozenset[str] = frozenset()
    looks: Counter[Look] = field(default_factory=Counter)
    pointed: tuple[int, int] = (0, 0)
    broken: int = 0

    def __add__(self, other: Facts) -> Facts:
        empty = [part for part in (self, other) if part.missing == part.rows]
        levels = None if self.levels is None or other.levels is None else self.levels | other.levels
        return Facts(
            name=self.name,
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            numbers=self.numbers + other.numbers,
            typed=self.typed and other.typed,
            coded=self.coded or other.coded,
            odd=self.odd + other.odd,
            odd_examples=(self.odd_examples + other.odd_examples)[:NAMED_ROWS],
            none=self.none | other.none,
            levels=None if levels is None or len(levels) > MOST_TEXTS else levels,
            first=self.first if self.first is not None else other.first,
            dated=self.dated or other.dated,
            formats=self.formats & other.formats if not empty else self.formats | other.formats,
            looks=self.looks + other.looks,
            pointed=(self.pointed[0] + other.pointed[0], self.pointed[1] + other.pointed[1]),
            broken=self.broken + other.broken,
        )

    @property
    def observed(self) -> int:
        """The number of rows that have a value."""
        return self.rows - self.missing

    @property
    def is_number(self) -> bool:
        """Whether the column is one of numbers."""
        return not self.dated and (self.padded or not self.coded) and not self.odd and (self.typed or self.observed > 0)

    @property
    def is_date(self) -> bool:
        """Whether the column is one of dates."""
        return self.dated or (not self.is_number and self.observed > 0 and bool(self.formats))

    @property
    def is_zero_one(self) -> bool:
        """Whether the column is one of zeros and ones."""
        return self.is_number and self.numbers.distinct is not None and set(self.numbers.distinct) <= {0.0, 1.0}

    def check(self) -> None:
        """Refuse texts among numbers, unless they are the greater part: then all are texts; and infinite numbers.

        What is declared to have categories, or is left out, may have both.

        Raises:
            InputError: Naming column, rows and value.
        """
        if self.is_number and self.numbers.infinite is not None:
            row, value = self.numbers.infinite
            raise InputError(
                f"column {self.name!r}, row {row + 1}: expected a finite number, got {value}; mend the cell, or declare the "
                "value as missing with data.missing"
            )
        if self.odd and self.numbers.count >= self.odd and (self.padded or not self.coded) and not self.dated:
            (row, text), *others = self.odd_examples
            listed = ", ".join(str(other + 1) for other, _ in others)
            dots = ", ..." if self.odd > NAMED_ROWS else ""
            more = f" (so are {self.odd - 1} more, in rows {listed}{dots})" if others else ""
            remedy = "mend the cell, declare it as missing with data.missing, or leave the column out with data.exclude"
            if (found := likely(self.looks)) is not None and found[1] == self.odd:
                remedy = f"set {said(found[0])}, if that is how its numbers are written"
            raise InputError(f"column {self.name!r}, row {row + 1}: expected a number, got {text!r}{more}; {remedy}")

    def numbers_for(self, what: str) -> Numbers:
        """The numbers of the column, for the param ``what``, which needs them.

        Raises:
            InputError: If it is a column of texts or dates.
        """
        if self.is_number:
            return self.numbers
        held = "dates or durations" if self.is_date else f"texts, such as {self.first!r}"
        raise InputError(f"{what}: needs numbers, but column {self.name!r} holds {held}; leave it out with data.exclude")


def is_number(value: str | float) -> bool:
    """Whether a param is a finite number, or the text of one."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
