"""Blocks of rows as the column program sees them: of each column its numbers, its texts, or both until it is known which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.reading.columns.facts import MOST_TEXTS, NAMED_ROWS, Facts, Numbers, is_number
from pipeline.tables.schema import number_text
from pipeline.tables.statistics import Array

MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "NaT"]
)  # texts that stand for no value, as pandas reads them
LEADING_ZERO = r"[+-]?0\d"
DATES = ("ISO8601", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y")
FIRST = 20  # texts that are tried before all of them

Codes = NDArray[np.int64]


class Texts(NamedTuple):
    """Values of a column as positions among its different texts; -1 where missing."""

    codes: Codes
    levels: list[str]

    @classmethod
    def of(cls, column: pd.Series, first: int, missing: Sequence[str | float]) -> tuple[Texts, Array]:
        """The texts of a column, and what each different one is as a number, NaN where it is none."""
        try:
            array = pa.array(column, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise _of_objects(column, first) from None
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if pa.types.is_null(array.type):
            array = array.cast(pa.string())
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise _of_objects(column, first)
        encoded = array.dictionary_encode()
        texts = pd.Series(encoded.dictionary.to_pylist(), dtype=object).str.strip()
        values = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
        codes = [code if isinstance(code, str) else number_text(code) for code in missing]
        is_missing = texts.isin([*MISSING, *codes]) | np.isin(values, _numeric(missing))
        places, levels = pd.factorize(texts.mask(is_missing))
        numbers = np.full(len(levels), np.nan)
        numbers[places[places >= 0]] = values[places >= 0]
        given = encoded.indices.fill_null(len(places)).to_numpy()
        return cls(np.append(places, -1)[given], [str(level) for level in levels]), numbers


class Cells(NamedTuple):
    """A column in a block: the values that are numbers, NaN elsewhere, and all as texts unless the file has numbers."""

    numbers: Array
    texts: Texts | None = None


@dataclass(frozen=True)
class Block:
    """Rows of a table.

    Attributes:
        number: The block's number, from 0.
        first: The number of its first row.
        data: The columns' numbers and texts, and what the rows are split by.
    """

    number: int
    first: int
    data: pa.RecordBatch

    @classmethod
    def of(cls, number: int, first: int, cells: Sequence[Cells], given: NDArray[np.int8], by: NDArray[np.uint64]) -> Block:
        """The block of these columns, of the splits that are given (-1: none), and of what the rows are split by."""
        arrays: dict[str, pa.Array] = {"given": pa.array(given), "by": pa.array(by)}
        for column, (numbers, texts) in enumerate(cells):
            arrays[f"{column}"] = pa.array(numbers)
            if texts is not None:
                codes = pa.array(texts.codes, mask=texts.codes < 0)
                arrays[f"{column} texts"] = pa.DictionaryArray.from_arrays(codes, pa.array(texts.levels, pa.string()))
        return cls(number, first, pa.RecordBatch.from_pydict(arrays))

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.data.num_rows)

    def numbers(self, column: int) -> Array:
        """The numbers of a column (n,), NaN where missing; not to be written to."""
        return self.data[f"{column}"].to_numpy()

    def texts(self, column: int, *, numeric: bool) -> Texts:
        """The values of a column as texts: those of a ``numeric`` one from its numbers, however they were written."""
        name = f"{column} texts"
        if numeric or name not in self.data.schema.names:
            x = self.numbers(column)
            values, codes = np.unique(x, return_inverse=True)
            levels = [number_text(value) for value in values if not np.isnan(value)]
            return Texts(np.where(np.isnan(x), -1, codes), levels)
        held = self.data[name]
        return Texts(held.indices.fill_null(-1).to_numpy(), held.dictionary.to_pylist())

    @property
    def given(self) -> NDArray[np.int8]:
        """The split that is settled for each row, by its position in SPLITS; -1 where none is."""
        return self.data["given"].to_numpy()

    @property
    def by(self) -> NDArray[np.uint64]:
        """A digest of the group or stratum of each row."""
        return self.data["by"].to_numpy()


def survey(
    column: pd.Series, first: int, missing: Sequence[str | float], binarize: float | str | None = None
) -> tuple[Cells, Facts]:
    """A column of a block that begins at row ``first``, and what it is.

    Args:
        column: The raw values.
        first: The number of the first row.
        missing: Values that stand for no value, beside those that always do.
        binarize: Makes ones of greater numbers and zeros of others, if it is a number.

    Raises:
        InputError: Naming column, row and value of the first that is neither a number nor a text.
    """
    name, dated = str(column.name), column.dtype.kind in "mM"
    if pd.api.types.is_numeric_dtype(column) and not dated:
        x = column.astype("float64").to_numpy(na_value=np.nan)
        x = np.where(np.isin(x, _numeric(missing)), np.nan, x) if missing else x
        numbers = Numbers.of(x, first)
        levels = None if numbers.count else frozenset[str]()
        cells, facts = Cells(x), Facts(name, len(x), len(x) - numbers.count, numbers, typed=True, levels=levels)
    else:
        column = column.astype(object).map(str, na_action="ignore") if dated else column
        cells, facts = _survey_texts(name, *Texts.of(column, first, missing), first)
    if isinstance(binarize, float | int):
        x = np.where(np.isnan(cells.numbers), np.nan, cells.numbers > binarize)
        cells, facts = Cells(x, cells.texts), replace(facts, numbers=Numbers.of(x, first))
    return cells, replace(facts, dated=dated)


def _survey_texts(name: str, texts: Texts, numbers: Array, first: int) -> tuple[Cells, Facts]:
    codes, levels = texts
    x = np.append(numbers, np.nan)[codes]
    odd = np.flatnonzero((codes >= 0) & np.isnan(x))
    formats = list(DATES) if levels else []
    for part in (levels[:FIRST], levels):
        dates = pd.Series(part, dtype=object)
        formats = [form for form in formats if pd.to_datetime(dates, format=form, errors="coerce").notna().all()]
    facts = Facts(
        name=name,
        rows=len(codes),
        missing=int((codes < 0).sum()),
        numbers=Numbers.of(x, first),
        coded=bool(pd.Series(levels, dtype=object)[~np.isnan(numbers)].str.match(LEADING_ZERO).any()),
        odd=len(odd),
        odd_examples=tuple((first + int(row), levels[codes[row]]) for row in odd[:NAMED_ROWS]),
        levels=frozenset(levels) if len(levels) <= MOST_TEXTS else None,
        first=next((levels[code] for code in codes[codes >= 0][:1]), None),
        formats=frozenset(formats),
    )
    return Cells(x, texts if len(levels) <= MOST_TEXTS else None), facts


def _numeric(codes: Sequence[str | float]) -> list[float]:
    return [float(code) for code in codes if is_number(code)]


def _of_objects(column: pd.Series, first: int) -> InputError:
    row, value = next(
        (row, value)
        for row, value in enumerate(column)
        if not isinstance(value, str) and not (pd.api.types.is_scalar(value) and pd.isna(value))
    )
    return InputError(
        f"column {column.name!r}, row {first + row + 1}: expected a number or a text, got {value!r}; leave the column out "
        "with data.exclude"
    )
