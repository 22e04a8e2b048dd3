"""The values of a column as numbers x: themselves, or the positions of categories; each checked to be of its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.facts import MOST_TEXTS, Facts, is_number
from pipeline.reading.columns.guess import LARGEST_COUNT
from pipeline.tables.kinds import Kind
from pipeline.tables.schema import OTHER, number_text
from pipeline.tables.statistics import Array
from pipeline.tables.transforms import TRANSFORMS, Transform

ON_GRID = 1e-6  # steps that a value may be off its grid


@dataclass(frozen=True)
class Plan:
    """What to do with a column.

    Attributes:
        position: Its position in the blocks.
        facts: What is known of its values.
        kind: What it is taken for.
        options: What ``data.columns`` says of it.
        transform: The name of its transformation.
        noise: Its position among the columns to which noise is added; None for the others.
    """

    position: int
    facts: Facts
    kind: Kind
    options: ColumnOptions
    transform: str
    noise: int | None = None

    @property
    def name(self) -> str:
        """The name of the column."""
        return self.facts.name

    @property
    def has_categories(self) -> bool:
        """Whether the numbers x are positions of categories."""
        return self.kind in ("categorical", "ordinal") or (self.kind == "binary" and not self.facts.is_zero_one)

    @property
    def is_density(self) -> bool:
        """Whether the likelihood of the column is a density."""
        return self.kind == "continuous"

    @property
    def step(self) -> float | None:
        """The width of the noise that is added; None without."""
        return self.options.dequantize if self.is_density else None

    @property
    def family(self) -> type[Transform]:
        """The class of its transformation."""
        return TRANSFORMS[self.transform if self.is_density else "none"]

    def check(self) -> None:
        """Refuse a column that cannot be of its kind.

        Raises:
            InputError: If it has no value, or is one of texts, or of too many.
        """
        if not self.facts.observed:
            raise InputError(f"column {self.name!r} has no value in the training rows; leave it out with data.exclude")
        if not self.has_categories and not self.facts.is_number:
            raise InputError(
                f"data.columns.{self.name}: {self.kind} needs numbers, but the column holds texts such as {self.facts.first!r}"
            )
        if self.has_categories and not self.facts.is_number and self.facts.levels is None:
            raise _too_many(self)


def _too_many(plan: Plan) -> InputError:
    return InputError(
        f"column {plan.name!r} has more than {MOST_TEXTS:,} different values, too many for categories; leave it out with "
        "data.exclude, or declare another kind in data.columns"
    )


def numbers(plan: Plan, block: Block, x: Array) -> Array:
    """The numbers x of a block, checked.

    Raises:
        InputError: Naming the first row whose number is none of this kind, or off the grid that is to be dequantised.
    """
    if plan.kind == "count":
        bad = (x < 0) | (x != np.round(x)) & ~np.isnan(x) | (x > LARGEST_COUNT)
        for row in np.flatnonzero(bad)[:1]:
            raise InputError(
                f"column {plan.name!r}, row {block.first + row + 1}: a count must be a whole number from 0 to "
                f"{LARGEST_COUNT:,}; got {x[row]:g}; mend the cell, or set data.columns.{plan.name} to continuous"
            )
    if plan.step is not None:
        steps = x / plan.step
        for row in np.flatnonzero(np.abs(steps - np.round(steps)) > ON_GRID)[:1]:
            raise InputError(
                f"data.dequantize: {plan.step:g} needs multiples of {plan.step:g}; column {plan.name!r}, row "
                f"{block.first + row + 1} has {x[row]:g}; set the right step there or in data.columns, or null for continuous "
                "data"
            )
    return x


def counted(plan: Plan, block: Block, rows: Array) -> Counter[str]:
    """How often each category is in these rows of a block.

    Raises:
        InputError: If there are too many.
    """
    codes, levels = block.texts(plan.position, numeric=plan.facts.is_number)
    chosen = codes[rows]
    counts = np.bincount(chosen[chosen >= 0], minlength=len(levels))
    seen = Counter({level: int(count) for level, count in zip(levels, counts, strict=True) if count})
    if len(seen) > MOST_TEXTS:
        raise _too_many(plan)
    return seen


def categories(plan: Plan, seen: Counter[str]) -> list[str]:
    """The categories in their order: as declared, or of the numbers, or of the alphabet; those of the training rows.

    Raises:
        InputError: If there are too few or too many for the kind, or texts have no order.
    """
    names = sorted(seen, key=float if plan.facts.is_number else str)
    if len(names) > MOST_TEXTS:
        raise _too_many(plan)
    if plan.options.order is not None:
        numeric = plan.facts.is_number
        names = [
            number_text(float(value)) if not isinstance(value, str) or (numeric and is_number(value)) else value
            for value in plan.options.order
        ]
    elif plan.kind == "ordinal" and not plan.facts.is_number:
        raise InputError(
            f"data.columns.{plan.name}: ordinal texts need their order, from least to greatest, as in "
            f"{{kind: ordinal, order: [{', '.join(names)}]}}"
        )
    if plan.kind == "binary" and len(names) != 2:
        raise InputError(
            f"column {plan.name!r} is binary, but the training rows have {len(names)} different values: "
            f"{', '.join(names[:5])}; set data.columns.{plan.name} to {{kind: binary, order: [...]}} with both, to "
            "categorical, or leave it out"
        )
    if len(names) < 2:
        raise InputError(
            f"column {plan.name!r} has just one value in the training rows, {', '.join(names)}; leave it out with data.exclude"
        )
    return [*names, OTHER] if plan.options.other else names


def positions(plan: Plan, block: Block, known: Sequence[str]) -> Array:
    """The positions x of a block's values among the known categories, NaN where missing.

    Raises:
        InputError: Naming the first row with another category, unless others are declared.
    """
    codes, levels = block.texts(plan.position, numeric=plan.facts.is_number)
    places = {text: float(position) for position, text in enumerate(known)}
    other = places[OTHER] if plan.options.other else -1.0
    x = np.array([*(places.get(level, other) for level in levels), np.nan])[codes]
    for row in np.flatnonzero(x < 0)[:1]:
        listed = ", ".join(known[:8]) + ", ..." * (len(known) > 8)
        source = "data.columns" if plan.options.order else "the training rows"
        raise InputError(
            f"column {plan.name!r}, row {block.first + row + 1}: {levels[codes[row]]!r} is none of {listed}, the categories "
            f"of {source}; mend the cell, or set data.columns.{plan.name} to {{kind: {plan.kind}, other: true}}"
        )
    return x
