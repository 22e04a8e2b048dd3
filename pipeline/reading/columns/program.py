"""The two functions of a block that follow its survey: `measure` for what is fitted, `transform` for what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.reading.binarize import Binarize
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.coding import Plan, counted, numbers, positions
from pipeline.reading.digests import Digests
from pipeline.reading.splits import Labels, Splits
from pipeline.tables.schema import Column
from pipeline.tables.statistics import Array, Moments, Range
from pipeline.tables.transforms import AllValues


@dataclass(frozen=True)
class UniformNoise:
    """Uniform noise in [0, 1) for each row and dequantised column, a pure function of both.

    Attributes:
        state: The state of the generator before the first row.
        width: The number of columns.
    """

    state: Any
    width: int

    def of(self, block: Block) -> Array:
        """The noise of the rows of a block, (n, width)."""
        bits = np.random.PCG64()
        bits.state = self.state
        bits.advance(block.first * self.width)
        return np.random.Generator(bits).random((len(block), self.width))


@dataclass(frozen=True)
class Program:
    """What is done to every block.

    Attributes:
        plans: What to do with each column.
        splits: Which rows train, select and test.
        noise: What is added to dequantised columns.
        binarize: How intensities become zeros and ones; None if they do not.
    """

    plans: Sequence[Plan]
    splits: Splits
    noise: UniformNoise
    binarize: Binarize | None


class LabelledBlock:
    """A block with the split of its rows and the noise that is added to them."""

    def __init__(self, program: Program, block: Block) -> None:
        self.block = block
        self.labels: Labels = program.splits.labels(block)
        self.train = self.labels == 0
        self._noise = program.noise.of(block)
        self._binarize = program.binarize

    def numbers(self, plan: Plan) -> Array:
        """The raw numbers x of a column, checked; zeros and ones where they are drawn."""
        x = self.block.numbers(plan.position)
        return numbers(plan, self.block, self._binarize.drawn(self.block, plan.position, x) if self._binarize else x)

    def probabilities(self, plans: Sequence[Plan]) -> NDArray[np.float32] | None:
        """The probabilities of ones (n, D), where they are kept."""
        return self._binarize.probabilities(self.block, [plan.position for plan in plans]) if self._binarize else None

    def noisy(self, plan: Plan, x: Array) -> Array:
        """The numbers x of a column with its noise."""
        return x if plan.noise is None or plan.step is None else x + self._noise[:, plan.noise] * plan.step


@dataclass(frozen=True)
class Measured:
    """What the transformation of a column, its categories and the checks need to know of it; adds up over blocks.

    Attributes:
        observed: How many training rows have a value.
        range: The range of their x.
        least: The least x of all rows, with its noise.
        summary: What the transformation needs to know of the training rows' x with their noise.
        categories: How many training rows have each category.
    """

    observed: int = 0
    range: Range = field(default_factory=Range)
    least: float = np.inf
    summary: Any = None
    categories: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, plan: Plan, rows: LabelledBlock) -> Measured:
        """What a block says of a column."""
        if plan.has_categories:
            seen = counted(plan, rows.block, rows.train)
            return cls(observed=seen.total(), categories=seen)
        x = rows.numbers(plan)
        noisy = rows.noisy(plan, x)
        train = _observed(noisy[rows.train])
        family, least = plan.family, Range.of(noisy).least
        lowest = family.model_fields["least"].default
        is_outside = lowest is not None and least <= lowest
        return cls(
            observed=len(train),
            range=Range.of(x[rows.train]),
            least=least,
            summary=None if family.by_values or is_outside else family.summary(train),
        )

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
        """Whether all training rows have the same value in the column."""
        return len(self.categories) == 1 if self.categories else self.range.is_constant


def measure(program: Program, block: Block) -> list[Measured]:
    """What a block says of each column."""
    rows = LabelledBlock(program, block)
    return [Measured.of(plan, rows) for plan in program.plans]


def values(program: Program, columns: Sequence[int], block: Block) -> list[AllValues]:
    """The training rows' values x, with their noise, of these columns of a block."""
    rows = LabelledBlock(program, block)
    plans = [program.plans[column] for column in columns]
    return [AllValues((_observed(rows.noisy(plan, rows.numbers(plan))[rows.train]),)) for plan in plans]


def _observed(x: Array) -> Array:
    missing = np.isnan(x)
    return x[~missing] if missing.any() else x


class Prepared(NamedTuple):
    """What is told of a column as it comes out; adds up over blocks.

    Attributes:
        coded: The range of x of all rows, without noise.
        level: The moments of y, or log(1 + y) of counts, of the training rows.
        x, y: The moments of all rows of a density, with noise.
        x_range, y_range: Their ranges.
    """

    coded: Range
    level: Moments
    x: Moments = Moments()
    y: Moments = Moments()
    x_range: Range = Range()
    y_range: Range = Range()

    def __add__(self, other: Prepared) -> Prepared:  # type: ignore[override]
        return Prepared(*map(add, self, other))


@dataclass(frozen=True)
class Piece:
    """What comes out of a block.

    Attributes:
        rows: The numbers of its rows in the table.
        labels: The split of each row.
        y: The prepared values (n, D).
        digests: A digest of the raw values of each row.
        by: A digest of the group or stratum of each row.
        columns: What is told of each column.
        probabilities: The probabilities of ones (n, D), where these are drawn anew.
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
    rows = LabelledBlock(program, block)
    y = np.empty((len(block), len(columns)), dtype=np.float32)
    told, raw = [], {}
    for d, (plan, column) in enumerate(zip(program.plans, columns, strict=True)):
        known = column.categories
        x = raw[d] = rows.numbers(plan) if known is None else positions(plan, block, known)
        noisy = rows.noisy(plan, x)
        with np.errstate(all="ignore"):  # prepare refuses what comes of it
            prepared = column.transform.forward(noisy)
            level = np.log1p(prepared[rows.train]) if plan.kind == "count" else prepared[rows.train]
        y[:, d] = prepared
        said = Prepared(Range.of(x), Moments.of(level))
        if plan.is_density:
            of_x, of_y = (Moments.of(noisy), Range.of(noisy)), (Moments.of(prepared), Range.of(prepared))
            said = said._replace(x=of_x[0], x_range=of_x[1], y=of_y[0], y_range=of_y[1])
        told.append(said)
    return Piece(
        rows=np.arange(block.first, block.first + len(block)),
        labels=rows.labels,
        y=y,
        digests=np.asarray(pd.util.hash_pandas_object(pd.DataFrame(raw), index=False), dtype=np.uint64),
        by=program.splits.by(block),
        columns=told,
        probabilities=rows.probabilities(program.plans),
    )
