"""The two functions of a block that follow its survey: `measure` for what is fitted, `transform` for what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reading.binarize import Binarize
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.coding import Plan, counted, numbers, positions
from pipeline.reading.splits import Digests, Labels, Splits
from pipeline.tables.schema import Column
from pipeline.tables.statistics import Array, Moments, Range
from pipeline.tables.transforms import AllValues


@dataclass(frozen=True)
class Noise:
    """Uniform noise in [0, 1) for each row and dequantised column, a pure function of both.

    Attributes:
        state: Of the generator, before the first row.
        width: Columns.
    """

    state: Any
    width: int

    def of(self, block: Block) -> Array:
        """For the rows of a block, (n, width)."""
        bits = np.random.PCG64()
        bits.state = self.state
        bits.advance(block.first * self.width)
        return np.random.Generator(bits).random((len(block), self.width))


@dataclass(frozen=True)
class Program:
    """What is done to every block.

    Attributes:
        plans: Of the columns.
        splits: Of the rows.
        noise: That is added.
        binarize: How intensities become zeros and ones; None if they do not.
    """

    plans: Sequence[Plan]
    splits: Splits
    noise: Noise
    binarize: Binarize | None


class Rows:
    """A block with the split of its rows and the noise that is added to them."""

    def __init__(self, program: Program, block: Block) -> None:
        self.block = block
        self.labels: Labels = program.splits.labels(block)
        self.train = self.labels == 0
        self._noise = program.noise.of(block)
        self._binarize = program.binarize

    def numbers(self, plan: Plan) -> Array:
        """Raw numbers x of a column, checked; zeros and ones where they are drawn."""
        x = self.block.numbers(plan.position)
        return numbers(plan, self.block, self._binarize.drawn(self.block, plan.position, x) if self._binarize else x)

    def probabilities(self, plans: Sequence[Plan]) -> NDArray[np.float32] | None:
        """Of ones (n, D), where they are kept."""
        return self._binarize.probabilities(self.block, [plan.position for plan in plans]) if self._binarize else None

    def noisy(self, plan: Plan, x: Array) -> Array:
        """With the noise of a column."""
        return x if plan.noise is None or plan.step is None else x + self._noise[:, plan.noise] * plan.step


@dataclass(frozen=True)
class Measured:
    """Of a column: what its transformation, its categories and the checks need to know of it; adds up over blocks.

    Attributes:
        observed: Number of training rows that have it.
        range: Of their x.
        least: Least x of all rows, with its noise.
        summary: Of the training rows' x with their noise, for the transformation.
        categories: Of the training rows.
    """

    observed: int = 0
    range: Range = field(default_factory=Range)
    least: float = np.inf
    summary: Any = None
    categories: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            observed=self.observed + other.observed,
            range=self.range + other.range,
            least=min(self.least, other.least),
            summary=None if self.summary is None else self.summary + other.summary,
            categories=self.categories + other.categories,
        )

    @property
    def is_constant(self) -> bool:
        """Whether all training rows have the same value."""
        return len(self.categories) == 1 if self.categories else self.range.is_constant


def measure(program: Program, block: Block) -> list[Measured]:
    """What a block says of each column."""
    rows = Rows(program, block)
    return [_measured(plan, rows) for plan in program.plans]


def _measured(plan: Plan, rows: Rows) -> Measured:
    if plan.has_categories:
        found = counted(plan, rows.block, rows.train)
        return Measured(observed=found.total(), categories=found)
    x = rows.numbers(plan)
    noisy = rows.noisy(plan, x)
    train = _observed(noisy[rows.train])
    family, least = plan.family, Range.of(noisy).least
    lowest = family.model_fields["least"].default
    is_outside = lowest is not None and least <= lowest
    return Measured(
        observed=len(train),
        range=Range.of(x[rows.train]),
        least=least,
        summary=None if family.by_values or is_outside else family.summary(train),
    )


def values(program: Program, columns: Sequence[int], block: Block) -> list[AllValues]:
    """The training rows' values x, with their noise, of some columns of a block."""
    rows = Rows(program, block)
    plans = [program.plans[column] for column in columns]
    return [AllValues((_observed(rows.noisy(plan, rows.numbers(plan))[rows.train]),)) for plan in plans]


def _observed(x: Array) -> Array:
    missing = np.isnan(x)
    return x[~missing] if missing.any() else x


@dataclass(frozen=True)
class Prepared:
    """Of a column as it comes out; adds up over blocks.

    Attributes:
        coded: Range of x of all rows, without noise.
        level: Of y, or log(1 + y) of counts, of the training rows.
        x, y: Of all rows of a density.
        x_range, y_range: Likewise.
    """

    coded: Range
    level: Moments
    x: Moments = field(default_factory=Moments)
    y: Moments = field(default_factory=Moments)
    x_range: Range = field(default_factory=Range)
    y_range: Range = field(default_factory=Range)

    def __add__(self, other: Self) -> Prepared:
        return Prepared(
            coded=self.coded + other.coded,
            level=self.level + other.level,
            x=self.x + other.x,
            y=self.y + other.y,
            x_range=self.x_range + other.x_range,
            y_range=self.y_range + other.y_range,
        )


@dataclass(frozen=True)
class Piece:
    """What comes out of a block.

    Attributes:
        rows: Numbers of its rows in the table.
        labels: The split of each row.
        y: Prepared values (n, D).
        digests: Of the rows' raw values.
        by: Digests of the group or stratum of each row.
        columns: Of each column.
        probabilities: Of ones (n, D), where they are drawn.
    """

    rows: NDArray[np.int64]
    labels: Labels
    y: NDArray[np.float32]
    digests: Digests
    by: Digests
    columns: list[Prepared]
    probabilities: NDArray[np.float32] | None


def transform(program: Program, columns: Sequence[Column], block: Block) -> Piece:
    """The prepared rows of a block.

    Args:
        program: What is done to it.
        columns: As they were fitted.
        block: The rows.
    """
    rows = Rows(program, block)
    y = np.empty((len(block), len(columns)), dtype=np.float32)
    found, raw = [], {}
    for d, (plan, column) in enumerate(zip(program.plans, columns, strict=True)):
        known = column.categories
        x = raw[d] = rows.numbers(plan) if known is None else positions(plan, block, known)
        prepared, of_column = _prepared(plan, column, rows, x)
        y[:, d] = prepared
        found.append(of_column)
    return Piece(
        rows=np.arange(block.first, block.first + len(block)),
        labels=rows.labels,
        y=y,
        digests=np.asarray(pd.util.hash_pandas_object(pd.DataFrame(raw), index=False), dtype=np.uint64),
        by=block.by,
        columns=found,
        probabilities=rows.probabilities(program.plans),
    )


def _prepared(plan: Plan, column: Column, rows: Rows, x: Array) -> tuple[Array, Prepared]:
    noisy = rows.noisy(plan, x)
    with np.errstate(all="ignore"):  # prepare refuses what comes of it
        y = column.transform.forward(noisy)
        level = np.log1p(y[rows.train]) if plan.kind == "count" else y[rows.train]
    found = Prepared(Range.of(x), Moments.of(level))
    if not plan.is_density:
        return y, found
    of_x, of_y = (Moments.of(noisy), Range.of(noisy)), (Moments.of(y), Range.of(y))
    return y, replace(found, x=of_x[0], x_range=of_x[1], y=of_y[0], y_range=of_y[1])
