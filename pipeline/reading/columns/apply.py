"""A schema applied to rows of another table: its columns found, checked, and prepared as those of the model's own data."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.reading.columns.blocks import LEADING_ZERO, Cells, Texts
from pipeline.reading.columns.coding import TRUTHS, checked, placed
from pipeline.reading.columns.describe import listed
from pipeline.reading.digests import cell_digests, uniform
from pipeline.tables.schema import Column, Schema
from pipeline.tables.statistics import Array


@dataclass(frozen=True)
class Application:
    """Prepares rows by a schema. What comes of a row follows from the row alone, wherever it stands.

    Args:
        schema: What is known of the model's data.
        seed: What noise that is added, and zeros and ones that are drawn, follow from, beside the row.
    """

    schema: Schema
    seed: int

    def prepared(self, frame: pd.DataFrame, first: int) -> tuple[Array, NDArray[np.int64]]:
        """The prepared values (n, D) in float32 of rows from row ``first`` on, NaN where missing, and an id of each row.

        Rows with the same raw values have the same id, from 0 on.

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
        raw = [self._coded(column, Cells.of(frame[column.name], first, schema.reading), first) for column in schema.columns]
        digests = np.zeros(len(frame), dtype=np.uint64)
        for column, x in zip(schema.columns, raw, strict=True):
            digests += cell_digests(column.name, x, None)
        salts = pd.util.hash_array(np.array(schema.names, dtype=object), categorize=False)
        y = np.empty((len(frame), len(raw)), dtype=np.float32)
        for d, (column, x) in enumerate(zip(schema.columns, raw, strict=True)):
            if schema.reading.largest is not None:
                x = (uniform(digests ^ salts[d], self.seed) < x / schema.reading.largest).astype(np.float64)
            x = x + uniform(digests ^ salts[d], self.seed) * column.step if column.step is not None else x
            least = type(column.transform).model_fields["least"].default
            for row in np.flatnonzero(x <= least)[:1] if least is not None else ():
                where = f"column {column.name!r}, row {first + row + 1}: its transformation, {column.transform.name},"
                raise InputError(f"{where} needs values greater than {least:g}; got {x[row]:g}; leave the row out")
            y[:, d] = column.transform.forward(x)
        return y, (digests >> np.uint64(1)).astype(np.int64)

    def _coded(self, column: Column, cells: Cells, first: int) -> Array:
        """The raw values x, the positions of categories, each checked to be of the column's kind."""
        if column.categories is not None:
            what = "the categories of the model; mend the cell, or train with {kind: categorical, other: true} in data.columns"
            texts = cells.texts or Texts.of(cells.numbers)
            return placed(column.name, texts, column.categories, column.other, first, what)
        x, reading = _numbers(column, cells, first), self.schema.reading
        if isinstance(reading.binarize, float | int):
            x = np.where(np.isnan(x), np.nan, x > reading.binarize)
        if reading.largest is not None:
            for row in np.flatnonzero(~(x >= 0))[:1]:
                where = f"column {column.name!r}, row {first + row + 1}"
                raise InputError(f"{where}: expected an intensity from 0 on, as in training, got {x[row]:g}; mend the cell")
            return x
        if column.kind == "binary":
            for row in np.flatnonzero(~np.isin(x, (0, 1)) & ~np.isnan(x))[:1]:
                where = f"column {column.name!r}, row {first + row + 1}"
                raise InputError(f"{where}: expected 0 or 1, as in training, got {x[row]:g}")
        return checked(column.name, column.kind, column.step, x, first)


def _numbers(column: Column, cells: Cells, first: int) -> Array:
    """All values as numbers; truth values too, where they are those of a binary column.

    Raises:
        InputError: Naming the first row whose value is none, or not finite.
    """
    x = cells.numbers
    if cells.texts is not None:
        codes, levels = cells.texts
        truths = TRUTHS if column.kind == "binary" else {}
        x = np.where(np.isnan(x), np.array([*(truths.get(level, np.nan) for level in levels), np.nan])[codes], x)
        coded = np.array([*(re.match(LEADING_ZERO, level) is not None for level in levels), False])[codes]
        for row in np.flatnonzero((codes >= 0) & np.isnan(x) | (coded & (not column.padded)))[:1]:
            where, text = f"column {column.name!r}, row {first + row + 1}", levels[codes[row]]
            raise InputError(f"{where}: expected a number, as in training, got {text!r}; mend the cell")
    for row in np.flatnonzero(np.isinf(x))[:1]:
        where = f"column {column.name!r}, row {first + row + 1}"
        raise InputError(f"{where}: expected a finite number, got {x[row]}; mend the cell")
    return x
