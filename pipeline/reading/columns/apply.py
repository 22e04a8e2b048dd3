"""A schema applied to rows of another table: its columns found, checked, and prepared as those of the model's own data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions
from pipeline.reading.binarize import Binarize
from pipeline.reading.columns.blocks import Block, survey
from pipeline.reading.columns.coding import Plan, numbers, positions
from pipeline.reading.columns.describe import listed
from pipeline.reading.columns.facts import Facts
from pipeline.reading.columns.program import UniformNoise
from pipeline.tables.schema import Column, Schema
from pipeline.tables.statistics import Array


@dataclass(frozen=True)
class Application:
    """Prepares blocks of rows by a schema.

    Args:
        schema: What is known of the model's data.
        rows: The number of rows of the table, or an upper bound; they address the noise of zeros and ones that are drawn.
        seed: What noise that is added, and zeros and ones that are drawn, follow from.
    """

    schema: Schema
    seed: int
    rows: int = 2**40

    def prepared(self, frame: pd.DataFrame, number: int, first: int) -> Array:
        """The prepared values (n, D) in float32 of a block that begins at row ``first``; NaN where missing.

        Raises:
            InputError: Naming the column, and row and value where there is one, if it is not as in the schema.
        """
        schema = self.schema
        if missing := [name for name in schema.names if name not in frame.columns]:
            more = f" (so are {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"column {missing[0]!r} of the model is not in the file{more}; its columns are "
                f"{listed(frame.columns)}; name them as in training"
            )
        reading = schema.reading
        surveys = (survey(frame[name], first, reading.missing, reading.binarize) for name in schema.names)
        cells, facts = zip(*surveys, strict=True)
        empty = np.full(len(frame), -1, dtype=np.int8)
        block = Block.of(number, first, cells, empty, np.zeros(len(frame), dtype=np.uint64))
        generator, width = np.random.default_rng([self.seed, 4]), sum(column.step is not None for column in schema.columns)
        noise = iter(UniformNoise(generator.bit_generator.state, width).of(block).T)
        y = np.empty((len(frame), len(facts)), dtype=np.float32)
        for d, column in enumerate(schema.columns):
            x = self._coded(column, facts[d], block, d)
            x = x + next(noise) * column.step if column.step is not None else x
            least = type(column.transform).model_fields["least"].default
            for row in np.flatnonzero(x <= least)[:1] if least is not None else ():
                where = f"column {column.name!r}, row {first + row + 1}: its transformation, {column.transform.name},"
                raise InputError(f"{where} needs values greater than {least:g}; got {x[row]:g}; leave the row out")
            y[:, d] = column.transform.forward(x)
        return y

    def _coded(self, column: Column, facts: Facts, block: Block, d: int) -> Array:
        options = ColumnOptions(kind="categorical", other=True) if column.other else ColumnOptions(dequantize=column.step)
        plan = Plan(d, facts, column.kind, options, column.transform.name)
        if column.categories is not None:
            return positions(plan, block, column.categories)
        facts.check()
        if facts.observed and not facts.is_number:
            row, text = facts.odd_examples[0] if facts.odd_examples else (None, facts.first)
            where = "" if row is None else f", row {row + 1}"
            raise InputError(f"column {facts.name!r}{where}: expected a number, as in training, got {text!r}; mend the cell")
        x = block.numbers(d)
        if self.schema.reading.largest is not None:
            x = self._binarize.drawn(block, d, x)
        elif column.kind == "binary":
            for row in np.flatnonzero(~np.isin(x, (0, 1)) & ~np.isnan(x))[:1]:
                where = f"column {column.name!r}, row {block.first + row + 1}"
                raise InputError(f"{where}: expected 0 or 1, as in training, got {x[row]:g}")
        return numbers(plan, block, x)

    @property
    def _binarize(self) -> Binarize:
        largest = self.schema.reading.largest or 1.0
        return Binarize(self.seed, largest, self.rows, dynamic=False, names=self.schema.names)
