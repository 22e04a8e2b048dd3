"""The values of a column as numbers x: themselves, or the positions of categories; each checked to be of its kind."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions
from pipeline.reading.columns.blocks import LEADING_ZERO, Block, Texts
from pipeline.reading.columns.facts import MOST_OFF, MOST_TEXTS, Facts, is_number
from pipeline.reading.columns.guess import LARGEST_COUNT
from pipeline.tables.kinds import Kind
from pipeline.tables.schema import OTHER, number_text
from pipeline.tables.statistics import Array
from pipeline.tables.transforms import TRANSFORMS, Transform

ON_GRID = 1e-6  # steps that a value may be off its grid, or, up to MOST_OFF, this part of it, as those of 32 bits are:
SINGLE = 2.0**-23


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
    def by_number(self) -> bool:
        """Whether its categories are told apart as numbers: those of an order, not names such as 2.1 and 2.10."""
        return self.facts.is_number and self.kind != "categorical"

    @property
    def is_numeric(self) -> bool:
        """Whether its values are told apart as numbers."""
        return self.by_number if self.has_categories else self.facts.is_number

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
                f"data.columns.{self.name}: {self.kind} needs numbers, but the column holds texts such as "
                f"{self.facts.first!r}; declare a kind that has categories in data.columns, or leave it out with data.exclude"
            )
        if self.has_categories and not self.by_number and not self.facts.typed and self.facts.levels is None:
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
    return checked(plan.name, plan.kind, plan.step, x, block.first)


def checked(name: str, kind: Kind, step: float | None, x: Array, first: int) -> Array:
    """The numbers x of the rows of a column from row ``first`` on, checked to be counts, or on the grid of its steps.

    Raises:
        InputError: Naming the first row whose number is not.
    """
    if kind == "count":
        bad = (x < 0) | (x != np.round(x)) & ~np.isnan(x) | (x > LARGEST_COUNT)
        for row in np.flatnonzero(bad)[:1]:
            raise InputError(
                f"column {name!r}, row {first + row + 1}: a count must be a whole number from 0 to {LARGEST_COUNT:,}; got "
                f"{x[row]:g}; mend the cell, or set data.columns.{name} to continuous"
            )
    if step is not None:
        steps = x / step
        allowed = np.clip(SINGLE * np.abs(steps), ON_GRID, MOST_OFF)
        for row in np.flatnonzero(np.abs(steps - np.round(steps)) > allowed)[:1]:
            where = f"column {name!r}, row {first + row + 1} has {x[row]:g}"
            raise InputError(
                f"data.dequantize: {step:g} needs multiples of {step:g}; {where}; set the right step there or in "
                "data.columns, or null for continuous data"
            )
    return x


def counted(plan: Plan, block: Block, rows: Array) -> Counter[str]:
    """How often each category is in these rows of a block.

    Raises:
        InputError: If there are too many.
    """
    codes, levels = block.texts(plan.position, numeric=plan.by_number)
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
    names = sorted(seen, key=(lambda name: (float(name), name)) if plan.facts.is_number else None)
    if len(names) > MOST_TEXTS:
        raise _too_many(plan)
    if plan.options.order is not None:
        names = _in_order(plan, names)
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


def _in_order(plan: Plan, seen: Sequence[str]) -> list[str]:
    """The categories in the order that is declared, as they are written in the file, where they are."""
    order = plan.options.order or ()
    given = [value if isinstance(value, str) else number_text(float(value)) for value in order]
    given = [number_text(float(value)) if plan.by_number and is_number(value) else value for value in given]
    written = dict(zip(matched(seen, given).tolist(), seen, strict=True))
    return [written.get(float(at), value) for at, value in enumerate(given)]


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all categories are numbers, written as they are written for samples."""
    return all(is_number(name) and number_text(float(name)) == name for name in names)


def positions(plan: Plan, block: Block, known: Sequence[str]) -> Array:
    """The positions x of a block's values among the known categories, NaN where missing.

    Raises:
        InputError: Naming the first row with another category, unless others are declared.
    """
    texts = block.texts(plan.position, numeric=plan.by_number)
    source = "data.columns" if plan.options.order else "the training rows"
    remedy = f"set data.columns.{plan.name} to {{kind: categorical, other: true}}"
    if plan.kind == "ordinal":
        remedy = f"give it a place in data.columns.{plan.name}: {{kind: ordinal, order: [{', '.join(known)}]}}"
    what = f"the categories of {source}; mend the cell, or {remedy}"
    return placed(plan.name, texts, known, plan.options.other, block.first, what)


def placed(name: str, texts: Texts, known: Sequence[str], other: bool, first: int, what: str) -> Array:
    """The positions x of texts among the known categories, the last of which may be for all others; NaN where missing.

    Args:
        name: Of the column.
        texts: Its values.
        known: The categories.
        other: Whether the last of them is for all others.
        first: The row of the first value.
        what: What is known of the categories and what to do, for the error.

    Raises:
        InputError: Naming the first row with another category.
    """
    codes, levels = texts
    places = matched(levels, known)
    x = np.append(np.where(places < 0, len(known) - 1.0, places) if other else places, np.nan)[codes]
    for row in np.flatnonzero(x < 0)[:1]:
        listed = ", ".join(known[:8]) + ", ..." * (len(known) > 8)
        raise InputError(f"column {name!r}, row {first + row + 1}: {levels[codes[row]]!r} is none of {listed}, {what}")
    return x


def matched(levels: Sequence[str], known: Sequence[str]) -> Array:
    """The position of each text among the categories, -1 where it is none: as it is written, or else as a number.

    So 1.0 is category 1, unless another one is the same number, as 2.1 and 2.10 are. Truth values in texts are 0 and 1.
    """
    places = {text: position for position, text in enumerate(known)}
    keys, found = _as_keys(known), _as_keys(levels)
    if set(known) == set(TRUTHS) or set(keys) == {0.0, 1.0}:
        keys, found = (
            np.array([TRUTHS.get(text, key) for text, key in zip(texts, of, strict=True)])
            for texts, of in ((known, keys), (levels, found))
        )
    counts = Counter(keys.tolist())
    alike = {key: at for at, key in enumerate(keys.tolist()) if counts[key] == 1 and not math.isnan(key)}
    return np.array(
        [places.get(text, alike.get(key, -1)) for text, key in zip(levels, found.tolist(), strict=True)], dtype=float
    )


def same_numbers(names: Collection[str]) -> list[str]:
    """Categories that are the same number, written differently: the first of them; none where all differ."""
    by_number: dict[float, list[str]] = {}
    for name, key in zip(sorted(names), _as_keys(sorted(names)).tolist(), strict=True):
        if not math.isnan(key):
            by_number.setdefault(key, []).append(name)
    return next((same for same in by_number.values() if len(same) > 1), [])


TRUTHS = {"False": 0.0, "True": 1.0}


def _as_keys(texts: Sequence[str]) -> Array:
    """The number that each text is, NaN where it is none, as codes such as 007 are."""
    held = pd.Series(texts, dtype=object)
    numbers = pd.to_numeric(held, errors="coerce").to_numpy(dtype=np.float64)
    return np.where(held.str.match(LEADING_ZERO).to_numpy(dtype=bool) | ~np.isfinite(numbers), np.nan, numbers)
