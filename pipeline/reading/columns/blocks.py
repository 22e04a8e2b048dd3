"""Blocks of rows as the column program sees them: of each column its numbers, its texts, or both until it is known which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.columns.facts import MOST_TEXTS, NAMED_ROWS, ROUNDING, Facts, Numbers
from pipeline.reading.columns.looks import GROUPED, as_numbers, containing, looks_of, matching
from pipeline.tables.schema import Reading, number_text
from pipeline.tables.statistics import Array

MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "NaT"]
)  # texts that stand for no value, as pandas reads them
LEADING_ZERO = r"[+-]?0\d"
# formats of dates, and what these look like: ISO 8601 alone has years, and times without colons, that may be codes
DATES = {
    "ISO8601": r"[+-]?\d{4}-\d.*",
    "%d/%m/%Y": r"\d{1,2}/\d{1,2}/\d{4}",
    "%m/%d/%Y": r"\d{1,2}/\d{1,2}/\d{4}",
    "%d.%m.%Y": r"\d{1,2}\.\d{1,2}\.\d{4}",
    "%Y/%m/%d": r"\d{4}/\d.*",
    "%d/%m/%y": r"\d{1,2}/\d{1,2}/\d{2}",
    "%m/%d/%y": r"\d{1,2}/\d{1,2}/\d{2}",
    "%d-%b-%y": r"\d{1,2}-[A-Za-z]{3}-\d{2}",
    "%d-%b-%Y": r"\d{1,2}-[A-Za-z]{3}-\d{4}",
}
TRUTH = ("true", "false")
ROUNDING_OF = {np.dtype("f4"): 2.0**-23, np.dtype("f2"): 2.0**-10}  # of numbers of few bits
FIRST = 20  # texts that are tried before all of them

Codes = NDArray[np.int64]


class Texts(NamedTuple):
    """Values of a column as positions among its different texts; -1 where missing."""

    codes: Codes
    levels: list[str]

    @classmethod
    def of(cls, x: Array) -> Texts:
        """Numbers, NaN where missing, as texts."""
        values, codes = np.unique(x, return_inverse=True)
        return cls(np.where(np.isnan(x), -1, codes), [number_text(value) for value in values if not np.isnan(value)])


class Cells(NamedTuple):
    """A column in a block: the values that are numbers, NaN elsewhere, and all as texts unless the file has numbers.

    Of the texts that stand for no value it has those that are there.

    A cell says the same whatever other cells there are.
    """

    numbers: Array
    texts: Texts | None = None
    none: frozenset[str] = frozenset()

    @classmethod
    def of(cls, column: pd.Series, first: int, reading: Reading) -> Cells:
        """The cells of a column whose first row is row ``first``.

        Raises:
            InputError: Naming column, row and value of the first that is neither a number nor a text.
        """
        missing: list[float] = []
        if reading.missing:
            missing = pd.to_numeric(pd.Series(reading.missing, dtype=object), errors="coerce").dropna().tolist()
        if pd.api.types.is_numeric_dtype(column) and column.dtype.kind not in "mM":
            x = column.astype("float64").to_numpy(na_value=np.nan)
            return cls(np.where(np.isin(x, missing), np.nan, x) if missing else x)
        encoded = texts_of(column, first).dictionary_encode()
        texts = pc.utf8_trim_whitespace(encoded.dictionary)
        values = as_numbers(texts, reading)
        codes = [code if isinstance(code, str) else number_text(code) for code in reading.missing]
        is_missing = pc.is_in(texts, pa.array([*MISSING, *codes], texts.type)).to_numpy(zero_copy_only=False).astype(bool)
        is_missing |= np.isin(values, missing)
        truth = pc.is_in(pc.utf8_lower(texts), pa.array(TRUTH, texts.type))
        texts = pc.if_else(truth, pc.utf8_capitalize(texts), texts)
        named = pc.if_else(pa.array(is_missing), pa.scalar(None, texts.type), texts).dictionary_encode()
        places, levels = named.indices.fill_null(-1).to_numpy(), named.dictionary.to_pylist()
        numbers = np.full(len(levels), np.nan)
        numbers[places[places >= 0]] = values[places >= 0]
        at = np.append(places, -1)[encoded.indices.fill_null(len(places)).to_numpy()].astype(np.int64)
        none = frozenset(texts.filter(pa.array(is_missing)).to_pylist())
        return cls(np.append(numbers, np.nan)[at], Texts(at, levels), none)


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
        for column, (numbers, texts, _) in enumerate(cells):
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
            return Texts.of(self.numbers(column))
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


def reading_of(data: Data) -> Reading:
    """How the params say that raw values are read."""
    return Reading.model_validate(data.model_dump(include=set(Reading.model_fields)))


def survey(column: pd.Series, first: int, reading: Reading) -> tuple[Cells, Facts]:
    """A column of a block that begins at row ``first``, and what it is.

    Args:
        column: The raw values.
        first: The number of the first row.
        reading: How they are read.

    Raises:
        InputError: Naming column, row and value of the first that is neither a number nor a text.
    """
    name, dated = str(column.name), column.dtype.kind in "mM"
    cells = Cells.of(column, first, reading)
    none = cells.none
    if cells.texts is None:
        rounding = ROUNDING_OF.get(column.dtype, ROUNDING)
        numbers = Numbers.of(cells.numbers, first, rounding)
        levels = None if numbers.count else frozenset[str]()
        facts = Facts(name, len(column), len(column) - numbers.count, numbers, typed=True, levels=levels)
    else:
        facts = _survey_texts(name, cells.numbers, cells.texts, first, reading)
        cells = cells if facts.levels is not None else Cells(cells.numbers)
    if isinstance(reading.binarize, float | int):
        x = np.where(np.isnan(cells.numbers), np.nan, cells.numbers > reading.binarize)
        cells, facts = Cells(x, cells.texts), replace(facts, numbers=Numbers.of(x, first))
    return cells, replace(facts, dated=dated, none=none)


def _survey_texts(name: str, x: Array, texts: Texts, first: int, reading: Reading) -> Facts:
    codes, levels = texts
    held, odd = pa.array(levels, pa.string()), np.flatnonzero((codes >= 0) & np.isnan(x))
    rows, numbers = np.bincount(codes[codes >= 0], minlength=len(levels)), np.full(len(levels), np.nan)
    numbers[codes[codes >= 0]] = x[codes >= 0]
    texts_alone = np.isnan(numbers)
    pointed = ~texts_alone & containing(held, ".") & (reading.decimal == ".")
    formats = list(DATES) if levels else []
    for part in (held[:FIRST], held):
        formats = [form for form in formats if matching(part, DATES[form]).all()]
        dates = pd.Series(part.to_pylist() if formats else [])
        formats = [form for form in formats if pd.to_datetime(dates, format=form, errors="coerce").notna().all()]
    return Facts(
        name=name,
        rows=len(codes),
        missing=int((codes < 0).sum()),
        numbers=Numbers.of(x, first),
        coded=bool((~texts_alone & matching(held, rf"{LEADING_ZERO}.*")).any()),
        odd=len(odd),
        odd_examples=tuple((first + int(row), levels[codes[row]]) for row in odd[:NAMED_ROWS]),
        levels=frozenset(levels) if len(levels) <= MOST_TEXTS else None,
        first=next((levels[code] for code in codes[codes >= 0][:1]), None),
        formats=frozenset(formats),
        looks=looks_of(held.filter(pa.array(texts_alone)), rows[texts_alone], reading),
        pointed=(int(rows[pointed].sum()), int(rows[pointed & matching(held, GROUPED)].sum())) if pointed.any() else (0, 0),
        broken=int(rows[containing(held, "\n")].sum()),
    )


def texts_of(column: pd.Series, first: int) -> pa.Array:
    """The texts of a column whose first row is row ``first``, null where it has none.

    Raises:
        InputError: Naming column, row and value of the first that is no text.
    """
    column = column.astype(object).map(str, na_action="ignore") if column.dtype.kind in "mM" else column
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise _of_objects(column, first) from None
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    array = array.cast(pa.string()) if pa.types.is_null(array.type) else array
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise _of_objects(column, first)
    return array


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
