"""The passes over a table: its survey while it is read, a measurement of what is to be fitted, and its transformation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import add
from typing import Any, Self, TypeVar, cast

import numpy as np
import pandas as pd

from pipeline.base.bar import progress_bar
from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.binarize import Binarize
from pipeline.reading.columns.blocks import Block, reading_of, survey
from pipeline.reading.columns.coding import Plan, are_numbers, categories
from pipeline.reading.columns.describe import listed
from pipeline.reading.columns.facts import Facts, Numbers
from pipeline.reading.columns.guess import Guess, declared_of, kinds_of
from pipeline.reading.columns.kept import Blocks, KeptBlocks
from pipeline.reading.columns.program import Measured, Piece, Program, UniformNoise, measure, transform, values
from pipeline.reading.splits import Labels, RowDigests, Tally, settled, split_columns, split_rows
from pipeline.tables.kinds import CATEGORIES, KINDS, LEFT_OUT, Kind
from pipeline.tables.schema import Column
from pipeline.tables.statistics import Range, summed

VALUES_IN_MEMORY = 2**24  # values of columns that are fitted to all of them, at a time

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        blocks: Its rows.
        facts: What is known of its columns, without those that are excluded.
        tallies: What its blocks have to say to the split.
    """

    blocks: Blocks
    facts: list[Facts]
    tallies: list[Tally]

    @classmethod
    def of(cls, blocks: Blocks, surveys: Iterable[tuple[list[Facts], Tally]], data: Data) -> Self:
        """The table of these blocks, each of which was surveyed.

        Raises:
            InputError: Naming column, row and value of a text among numbers, or of a number that is not finite.
        """
        columns: list[Facts] = []
        tallies = []
        for facts, tally in surveys:
            columns = list(map(add, columns, facts)) if columns else facts
            tallies.append(tally)
        for place, column in enumerate(columns):
            declared = declared_of(column.name, data).declared
            columns[place] = column = replace(column, padded=column.coded and declared in ("continuous", "count"))
            if declared not in (*CATEGORIES, *LEFT_OUT):
                column.check()
        return cls(blocks, columns, tallies)

    def tallied(self, plans: Sequence[Plan], data: Data) -> tuple[list[Tally], RowDigests | None]:
        """What blocks have to say to the split: more where copies stay together, and then by what copies are known."""
        if data.split is None or data.split.together is None:
            return self.tallies, None
        copies = RowDigests([(plan.name, plan.position, plan.is_numeric) for plan in plans])
        return list(over(self.blocks, "looking for copies", partial(Tally.of, copies=copies))), copies


def surveyed(frames: Iterable[tuple[pd.DataFrame, Labels]], data: Data, blocks: KeptBlocks) -> Table:
    """Read a table.

    Args:
        frames: Its rows, so many at a time, and for each the split that is settled.
        data: The params.
        blocks: Where they go; empty.

    Raises:
        InputError: Naming column, row and value of what is neither a number nor a text, or a text among numbers.
    """

    def surveys() -> Iterator[tuple[list[Facts], Tally]]:
        first = 0
        with progress_bar(transient=True) as bar:
            task = bar.add_task("reading rows", total=None, note="")
            for number, (frame, given) in enumerate(frames):
                block, facts = block_of(frame, given, data, number, first)
                blocks.append(block)
                first += len(frame)
                bar.update(task, completed=first)
                yield facts, Tally.of(block)

    return Table.of(blocks, surveys(), data)


def block_of(frame: pd.DataFrame, given: Labels, data: Data, number: int, first: int) -> tuple[Block, list[Facts]]:
    """The block that begins at row ``first``, and what its columns are."""
    for where, names in (("data.exclude", data.exclude), ("data.columns", data.columns)):
        if unknown := sorted(set(names) - set(frame.columns)):
            near = [name for name in frame.columns if str(name).strip() == unknown[0].strip()]
            spaces = f"; {near[0]!r} has other spaces, which belong to its name" if near else ""
            columns = listed(frame.columns)
            raise InputError(f"{where}: no column {unknown[0]!r} in {data.path}{spaces}; its columns are {columns}")
    kept = [name for name in frame.columns if name not in data.exclude and name not in split_columns(data)]
    if not kept:
        raise InputError(f"data.exclude: leaves no column of {data.path}; name fewer")
    cells, facts = zip(*(survey(frame[name], first, reading_of(data)) for name in kept), strict=True)
    return Block.of(number, first, cells, *settled(frame, given, data, first)), list(facts)


def planned(table: Table, data: Data, seed: int) -> tuple[Program, dict[str, Guess]]:
    """What is done to every block, and the kind of each column with its reason.

    Raises:
        InputError: If no column is left, or one cannot be of its kind, or a split gets too few rows.
    """
    kinds = kinds_of(table.facts, data)
    kept = [(position, facts) for position, facts in enumerate(table.facts) if kinds[facts.name][0] in KINDS]
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, (_, why) in list(kinds.items())[:8])
        raise InputError(f"{data.path}: no column is left, as {reasons}; declare the kinds of some in data.columns")
    binarize = None
    if isinstance(data.binarize, str):
        binarize = Binarize.of(table.facts, data.binarize, seed)
        kept = [(position, replace(facts, numbers=ZERO_ONE)) for position, facts in kept]
    elif data.binarize is not None:
        for facts in table.facts:
            facts.numbers_for("data.binarize")
    plans, width = [], 0
    for position, facts in kept:
        options = declared_of(facts.name, data)
        if options.declared in (None, "continuous") and options.dequantize is None:
            options = options.model_copy(update={"dequantize": data.dequantize})
        plan = Plan(position, facts, cast(Kind, kinds[facts.name][0]), options, options.transform or data.scale, width)
        plan.check()
        plans.append(plan if plan.step is not None else replace(plan, noise=None))
        width += plan.step is not None
    rng = np.random.default_rng(seed)
    tallies, copies = table.tallied(plans, data)
    splits = split_rows(tallies, data, seed, rng, copies)
    return Program(plans, splits, UniformNoise(rng.bit_generator.state, width), binarize), kinds


ZERO_ONE = Numbers(count=2, range=Range(0.0, 1.0), distinct=(0.0, 1.0), ends=(0.0, 1.0))


def over(blocks: Blocks, what: str, function: Callable[[Block], T]) -> Iterator[T]:
    """What a function makes of each block, in their order, under a progress bar."""
    with progress_bar(transient=True) as bar:
        task = bar.add_task(what, total=len(blocks), note="")
        for made in blocks.map(function):
            yield made
            bar.advance(task)


def measured(program: Program, blocks: Blocks) -> list[Measured]:
    """What all blocks say of each column."""
    return summed(over(blocks, "measuring blocks", partial(measure, program)))


def fitted(program: Program, measurements: Sequence[Measured], blocks: Blocks) -> list[Column]:
    """The columns with their categories and transformations.

    Raises:
        InputError: If the training rows have no value of one, or its transformation does not apply.
    """
    columns = [_described(plan, seen) for plan, seen in zip(program.plans, measurements, strict=True)]
    whole = [d for d, plan in enumerate(program.plans) if plan.family.by_values]
    size = max(1, VALUES_IN_MEMORY // program.splits.rows["train"])
    for group in (whole[first : first + size] for first in range(0, len(whole), size)):
        parts = over(blocks, "sorting columns", partial(values, program, group))
        for d, x in zip(group, summed(parts), strict=True):
            columns[d] = _with_transform(program.plans[d], columns[d], x)
    return columns


def _described(plan: Plan, seen: Measured) -> Column:
    if not seen.observed:
        raise InputError(f"column {plan.name!r} has no value in the training rows; leave it out with data.exclude")
    column = Column(name=plan.name, kind=plan.kind, missing=plan.facts.missing, step=plan.step, padded=plan.facts.padded)
    if plan.has_categories:
        names = categories(plan, seen.categories)
        numeric = plan.facts.is_number and not plan.options.other and are_numbers(names)
        return column.model_copy(update={"categories": names, "numeric": numeric, "other": plan.options.other})
    least = plan.family.model_fields["least"].default
    if least is not None and seen.least <= least:
        raise InputError(
            f"data.columns.{plan.name}.transform: {plan.transform} needs values greater than {least:g}; got {seen.least:g}; "
            "choose standardize or quantile"
        )
    return column if plan.family.by_values else _with_transform(plan, column, seen.summary)


def _with_transform(plan: Plan, column: Column, summary: Any) -> Column:
    try:
        return column.model_copy(update={"transform": plan.family.of(summary)})
    except ValueError as error:
        raise InputError(f"data.columns.{plan.name}.transform: {error}") from error


def transformed(program: Program, columns: Sequence[Column], blocks: Blocks) -> Iterator[Piece]:
    """The prepared rows of each block."""
    return over(blocks, "preparing blocks", partial(transform, program, columns))
