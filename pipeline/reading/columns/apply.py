"""A schema applied to rows of another table: its columns found, checked, and prepared as those of the model's own data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions
from pipeline.reading.binarize import Binarize, above
from pipeline.reading.columns.blocks import Block, Cells, survey
from pipeline.reading.columns.coding import Plan, numbers, positions
from pipeline.reading.columns.describe import some
from pipeline.reading.columns.facts import Facts, Numbers
from pipeline.reading.columns.program import Noise
from pipeline.tables.schema import Column, Schema
from pipeline.tables.statistics import Array


@dataclass(frozen=True)
class Application:
    """Prepares blocks of rows by a schema.

    Args:
        schema: Of the model's data.
        rows: Of the table, or an upper bound; they address the noise of zeros and ones that are drawn.
        seed: Of noise that is added and of zeros and ones that are drawn.
    """

    schema: Schema
    seed: int
    rows: int = 2**40

    def prepared(self, frame: pd.DataFrame, number: int, first: int) -> Array:
        """Prepared values (n, D) in float32 of a block that begins at row ``first``; NaN where missing.

        Raises:
            InputError: Naming the column, and row and value where there is one, if it is not as in the schema.
        """
        self._check_names(frame)
        found = [self._read(frame[column.name], first) for column in self.schema.columns]
        empty = np.full(len(frame), -1, dtype=np.int8)
        block = Block.of(number, first, [cells for cells, _ in found], empty, np.zeros(len(frame), dtype=np.uint64))
        noise = iter(self._noise(block).T)
        y = np.empty((len(frame), len(found)), dtype=np.float32)
        for d, (column, (_, facts)) in enumerate(zip(self.schema.columns, found, strict=True)):
            x = self._coded(column, facts, block, d)
            x = x + next(noise) * column.step if column.step is not None else x
            _check_image(column, x, first)
            y[:, d] = column.transform.forward(x)
        return y

    def _check_names(self, frame: pd.DataFrame) -> None:
        if missing := [name for name in self.schema.names if name not in frame.columns]:
            more = f" (so are {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"column {missing[0]!r} of the model is not in the file{more}; its columns are "
                f"{some(frame.columns)}; name them as in training"
            )

    def _read(self, column: pd.Series, first: int) -> tuple[Cells, Facts]:
        cells, facts = survey(column, first, self.schema.reading.missing)
        threshold = self.schema.reading.binarize
        if isinstance(threshold, float | int):
            x = above(cells.numbers, threshold)
            return Cells(x, cells.texts), replace(facts, numbers=Numbers.of(x, first))
        return cells, facts

    def _coded(self, column: Column, facts: Facts, block: Block, d: int) -> Array:
        options = ColumnOptions(kind="categorical", other=True) if column.other else ColumnOptions(dequantize=column.step)
        plan = Plan(d, facts, column.kind, options, column.transform.name)
        if column.categories is not None:
            return positions(plan, block, column.categories)
        _check_numbers(facts)
        x = block.numbers(d)
        if self.schema.reading.largest is not None:
            x = self._binarize.drawn(block, d, x)
        elif column.kind == "binary":
            _check_zero_one(column, x, block.first)
        return numbers(plan, block, x)

    @property
    def _binarize(self) -> Binarize:
        largest = self.schema.reading.largest or 1.0
        return Binarize(self.seed, largest, self.rows, dynamic=False, names=self.schema.names)

    def _noise(self, block: Block) -> Array:
        steps = [column for column in self.schema.columns if column.step is not None]
        state: Any = np.random.default_rng([self.seed, 4]).bit_generator.state
        return Noise(state, len(steps)).of(block)


def _check_numbers(facts: Facts) -> None:
    facts.check()
    if facts.observed and not facts.is_number:
        row, text = facts.odd_examples[0] if facts.odd_examples else (None, facts.first)
        where = "" if row is None else f", row {row + 1}"
        raise InputError(f"column {facts.name!r}{where}: expected a number, as in training, got {text!r}; mend the cell")


def _check_zero_one(column: Column, x: Array, first: int) -> None:
    for row in np.flatnonzero(~np.isin(x, (0, 1)) & ~np.isnan(x))[:1]:
        raise InputError(f"column {column.name!r}, row {first + row + 1}: expected 0 or 1, as in training, got {x[row]:g}")


def _check_image(column: Column, x: Array, first: int) -> None:
    least = type(column.transform).model_fields["least"].default
    for row in np.flatnonzero(x <= least)[:1] if least is not None else ():
        raise InputError(
            f"column {column.name!r}, row {first + row + 1}: its transformation, {column.transform.name}, needs values "
            f"greater than {least:g}; got {x[row]:g}; leave the row out"
        )
