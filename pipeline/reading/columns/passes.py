"""The passes over a table: its survey while it is read, a measurement of what is to be fitted, and its transformation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions, Data
from pipeline.reading.binarize import Binarize, above
from pipeline.reading.columns.blocks import Block, Cells, survey
from pipeline.reading.columns.coding import Plan, categories
from pipeline.reading.columns.describe import some
from pipeline.reading.columns.facts import Facts, Numbers
from pipeline.reading.columns.guess import Guess, declared_of, kinds_of
from pipeline.reading.columns.kept import Blocks, Store
from pipeline.reading.columns.program import Measured, Noise, Piece, Program, measure, transform, values
from pipeline.reading.splits import Labels, Tally, settled, split_columns, split_rows
from pipeline.tables.kinds import KINDS, Kind
from pipeline.tables.schema import Column
from pipeline.tables.statistics import Range
from vae.bar import progress_bar

VALUES_IN_MEMORY = 2**24  # values of columns that are fitted to all of them, at a time

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        store: Its blocks.
        facts: Of its columns, without those that are excluded.
        tallies: Of its blocks.
    """

    store: Blocks
    facts: list[Facts]
    tallies: list[Tally]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.facts[0].rows


def surveyed(frames: Iterable[tuple[pd.DataFrame, Labels]], data: Data, store: Store) -> Table:
    """Read a table, whose blocks go to the store.

    Args:
        frames: Blocks of rows, and for each row the split that is settled.
        data: The params.
        store: Empty.

    Raises:
        InputError: Naming column, row and value of what is neither a number nor a text, or a text among numbers.
    """
    facts: list[Facts] = []
    tallies, first = [], 0
    with progress_bar(transient=True) as bar:
        task = bar.add_task("reading rows", total=None, note="")
        for number, (frame, given) in enumerate(frames):
            block, found = block_of(frame, given, data, number, first)
            facts = list(map(add, facts, found)) if facts else found
            tallies.append(Tally.of(block))
            store.append(block)
            first += len(frame)
            bar.update(task, completed=first)
    for of in facts:
        of.check()
    return Table(store, facts, tallies)


def block_of(frame: pd.DataFrame, given: Labels, data: Data, number: int, first: int) -> tuple[Block, list[Facts]]:
    """The block that begins at row ``first``, and what its columns are."""
    found = [_thresholded(*survey(frame[name], first, data.missing), data, first) for name in _selected(frame, data)]
    return Block.of(number, first, [cells for cells, _ in found], *settled(frame, given, data, first)), [of for _, of in found]


def _thresholded(cells: Cells, facts: Facts, data: Data, first: int) -> tuple[Cells, Facts]:
    if not isinstance(data.binarize, float | int):
        return cells, facts
    x = above(cells.numbers, data.binarize)
    return Cells(x, cells.texts), replace(facts, numbers=Numbers.of(x, first))


def _selected(frame: pd.DataFrame, data: Data) -> list[str]:
    for where, names in (("data.exclude", data.exclude), ("data.columns", data.columns)):
        if unknown := sorted(set(names) - set(frame.columns)):
            raise InputError(f"{where}: no column {unknown[0]!r} in {data.path}; its columns are {some(frame.columns)}")
    kept = [name for name in frame.columns if name not in data.exclude and name not in split_columns(data)]
    if not kept:
        raise InputError(f"data.exclude: leaves no column of {data.path}; name fewer")
    return kept


def planned(table: Table, data: Data, seed: int) -> tuple[Program, dict[str, Guess]]:
    """What is done to every block, and the kind of each column with its reason.

    Raises:
        InputError: If no column is left, or one cannot be of its kind, or a split gets too few rows.
    """
    kinds = kinds_of(table.facts, data)
    kept = [(position, of) for position, of in enumerate(table.facts) if kinds[of.name][0] in KINDS]
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, (_, why) in list(kinds.items())[:8])
        raise InputError(f"{data.path}: no column is left, as {reasons}; declare the kinds of some in data.columns")
    binarize = None
    if isinstance(data.binarize, str):
        binarize = Binarize.of(table.facts, data.binarize, seed)
        kept = [(position, replace(of, numbers=ZERO_ONE)) for position, of in kept]
    elif data.binarize is not None:
        [of.numbers_for("data.binarize") for of in table.facts]
    rng = np.random.default_rng(seed)
    splits = split_rows(table.tallies, data, seed, rng)
    plans, width = [], 0
    for position, of in kept:
        options = _options(of, data)
        transformation = declared_of(of.name, data).transform or data.scale
        plan = Plan(position, of, cast(Kind, kinds[of.name][0]), options, transformation, width)
        plan.check()
        plans.append(plan if plan.step is not None else replace(plan, noise=None))
        width += plan.step is not None
    return Program(plans, splits, Noise(cast(dict[str, Any], rng.bit_generator.state), width), binarize), kinds


ZERO_ONE = Numbers(count=2, range=Range(0.0, 1.0), distinct=(0.0, 1.0), ends=(0.0, 1.0))


def _options(of: Facts, data: Data) -> ColumnOptions:
    options = declared_of(of.name, data)
    if options.declared in (None, "continuous") and options.dequantize is None:
        return options.model_copy(update={"dequantize": data.dequantize})
    return options


def over(store: Blocks, what: str, function: Callable[[Block], T]) -> Iterator[T]:
    """What a function makes of each block, in their order, under a progress bar."""
    with progress_bar(transient=True) as bar:
        task = bar.add_task(what, total=len(store), note="")
        for found in store.map(function):
            yield found
            bar.advance(task)


def measured(program: Program, store: Blocks) -> list[Measured]:
    """What all blocks say of each column."""
    return reduce(lambda one, other: list(map(add, one, other)), over(store, "measuring blocks", partial(measure, program)))


def fitted(program: Program, found: Sequence[Measured], store: Blocks) -> list[Column]:
    """The columns with their categories and transformations.

    Raises:
        InputError: If the training rows have no value of one, or its transformation does not apply.
    """
    columns = [_described(plan, of) for plan, of in zip(program.plans, found, strict=True)]
    whole = [d for d, plan in enumerate(program.plans) if plan.family.by_values]
    size = max(1, VALUES_IN_MEMORY // program.splits.rows["train"])
    for group in (whole[first : first + size] for first in range(0, len(whole), size)):
        parts = over(store, "sorting columns", partial(values, program, group))
        for d, of in zip(group, reduce(lambda one, other: list(map(add, one, other)), parts), strict=True):
            columns[d] = _with_transform(program.plans[d], columns[d], of)
    return columns


def _described(plan: Plan, found: Measured) -> Column:
    if not found.observed:
        raise InputError(f"column {plan.name!r} has no value in the training rows; leave it out with data.exclude")
    column = Column(name=plan.name, kind=plan.kind, missing=plan.facts.missing, step=plan.step)
    if plan.has_categories:
        numeric = plan.facts.is_number and not plan.options.other
        described = {"categories": categories(plan, found.categories), "numeric": numeric, "other": plan.options.other}
        return column.model_copy(update=described)
    least = plan.family.model_fields["least"].default
    if least is not None and found.least <= least:
        raise InputError(
            f"data.columns.{plan.name}.transform: {plan.transform} needs values greater than {least:g}; got {found.least:g}; "
            "choose standardize or quantile"
        )
    return column if plan.family.by_values else _with_transform(plan, column, found.summary)


def _with_transform(plan: Plan, column: Column, summary: Any) -> Column:
    try:
        return column.model_copy(update={"transform": plan.family.of(summary)})
    except ValueError as error:
        raise InputError(f"data.columns.{plan.name}.transform: {error}") from error


def transformed(program: Program, columns: Sequence[Column], store: Blocks) -> Iterator[Piece]:
    """The prepared rows of each block."""
    return over(store, "preparing blocks", partial(transform, program, columns))
