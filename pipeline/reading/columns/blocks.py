"""Blocks of rows as the column program sees them: of each column its numbers, its texts, or both until it is known which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

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


class Cells(NamedTuple):
    """A column in a block: the values that are numbers, NaN elsewhere, and all as texts unless the file has numbers."""

    numbers: Array
    texts: Texts | None = None


@dataclass(frozen=True)
class Block:
    """Rows of a table.

    Attributes:
        number: Of the block, from 0.
        first: Number of its first row.
        data: The columns' numbers and texts, and what the rows are split by.
    """

    number: int
    first: int
    data: pa.RecordBatch

    @classmethod
    def of(cls, number: int, first: int, cells: Sequence[Cells], given: NDArray[np.int8], by: NDArray[np.uint64]) -> Block:
        """Of columns, of the splits that are given (-1: none), and of what the rows are split by."""
        arrays: dict[str, pa.Array] = {"given": pa.array(given), "by": pa.array(by)}
        for column, (numbers, texts) in enumerate(cells):
            arrays[f"{column}"] = pa.array(numbers)
            if texts is not None:
                codes = pa.array(texts.codes, mask=texts.codes < 0)
                arrays[f"{column} texts"] = pa.DictionaryArray.from_arrays(codes, pa.array(texts.levels, pa.string()))
        return cls(number, first, pa.RecordBatch.from_pydict(arrays))

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.data.num_rows)

    def numbers(self, column: int) -> Array:
        """Its numbers (n,), NaN where missing; not to be written to."""
        return self.data[f"{column}"].to_numpy()

    def texts(self, column: int, *, numeric: bool) -> Texts:
        """Its values as texts: of a ``numeric`` column its numbers', equal ones alike however they were written."""
        name = f"{column} texts"
        if numeric or name not in self.data.schema.names:
            return _as_texts(self.numbers(column))
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


def _as_texts(x: Array) -> Texts:
    values, codes = np.unique(x, return_inverse=True)
    return Texts(np.where(np.isnan(x), -1, codes), [number_text(value) for value in values if not np.isnan(value)])


def survey(column: pd.Series, first: int, codes: Sequence[str | float]) -> tuple[Cells, Facts]:
    """A column of a block that begins at row ``first``, with the missing values and ``codes`` recognised, and what it is.

    Raises:
        InputError: Naming column, row and value of the first that is neither a number nor a text.
    """
    name = str(column.name)
    if column.dtype.kind in "mM":
        cells, facts = _texts(name, column.astype(object).map(str, na_action="ignore"), first, codes)
        return cells, replace(facts, dated=True)
    if pd.api.types.is_numeric_dtype(column):
        return _numbers(name, column.astype("float64").to_numpy(na_value=np.nan), first, codes)
    return _texts(name, column, first, codes)


def _numbers(name: str, x: Array, first: int, codes: Sequence[str | float]) -> tuple[Cells, Facts]:
    x = np.where(np.isin(x, _numeric(codes)), np.nan, x) if codes else x
    numbers = Numbers.of(x, first)
    missing = len(x) - numbers.count
    levels = None if numbers.count else frozenset[str]()
    return Cells(x), Facts(name, len(x), missing, numbers, typed=True, levels=levels)


def _texts(name: str, column: pd.Series, first: int, codes: Sequence[str | float]) -> tuple[Cells, Facts]:
    encoded = _encoded(column, first)
    levels, numbers_of, positions = _levels(encoded.dictionary.to_pylist(), codes)
    at = encoded.indices.fill_null(len(positions)).to_numpy()
    found = np.append(positions, -1)[at]
    x = np.append(numbers_of, np.nan)[found]
    odd = np.flatnonzero((found >= 0) & np.isnan(x))
    facts = Facts(
        name=name,
        rows=len(found),
        missing=int((found < 0).sum()),
        numbers=Numbers.of(x, first),
        coded=bool(pd.Series(levels, dtype=object)[~np.isnan(numbers_of)].str.match(LEADING_ZERO).any()),
        odd=len(odd),
        odd_examples=tuple((first + int(row), levels[found[row]]) for row in odd[:NAMED_ROWS]),
        levels=frozenset(levels) if len(levels) <= MOST_TEXTS else None,
        first=next((levels[code] for code in found[found >= 0][:1]), None),
        formats=frozenset(form for form in DATES if levels and _fits(form, levels)),
    )
    return Cells(x, Texts(found, levels) if len(levels) <= MOST_TEXTS else None), facts


def _levels(given: list[str], codes: Sequence[str | float]) -> tuple[list[str], Array, Codes]:
    """The different texts, their numbers, NaN where they are none, and the place of each given one, -1 if missing."""
    texts = pd.Series(given, dtype=object).str.strip()
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    missing = texts.isin([*MISSING, *map(_code_text, codes)]) | np.isin(numbers, _numeric(codes))
    positions, levels = pd.factorize(texts.mask(missing))
    of = np.full(len(levels), np.nan)
    of[positions[positions >= 0]] = numbers[positions >= 0]
    return [str(level) for level in levels], of, positions


def _numeric(codes: Sequence[str | float]) -> list[float]:
    return [float(code) for code in codes if is_number(code)]


def _code_text(code: str | float) -> str:
    return code if isinstance(code, str) else number_text(code)


def _encoded(column: pd.Series, first: int) -> pa.DictionaryArray:
    """Each different text once."""
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise _of_objects(column, first) from None
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise _of_objects(column, first)
    return cast(pa.DictionaryArray, array.dictionary_encode())


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


def _fits(form: str, texts: list[str]) -> bool:
    """Whether all are dates of this form; the first few say it of most that are not."""
    return _are_dates(form, texts[:FIRST]) and _are_dates(form, texts)


def _are_dates(form: str, texts: list[str]) -> bool:
    return bool(pd.to_datetime(pd.Series(texts, dtype=object), format=form, errors="coerce").notna().all())
