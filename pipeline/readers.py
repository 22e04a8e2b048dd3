"""Tables from files: one reader per format, chosen by the file's suffix."""

from __future__ import annotations

import csv
import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError


def read_table(path: Path) -> pd.DataFrame:
    """Read the table at ``path``; columns keep their names, rows their order.

    Raises:
        InputError: If the file is missing, empty, of an unknown format, malformed, or names a column twice.
    """
    check_file(path)
    table = READERS[path.suffix.lower()](path)
    if not len(table):
        raise InputError(f"data.path: {path} has a header but no rows")
    return table


def check_file(path: Path) -> None:
    """Refuse what cannot be a table without reading it.

    Raises:
        InputError: If ``path`` is missing, a folder, empty, or of an unknown format.
    """
    if path.is_dir():
        raise InputError(f"data.path: {path} is a folder; name the file in it")
    if not path.is_file():
        raise InputError(f"data.path: {path} does not exist; put the file there or name another one in params.yaml")
    if path.stat().st_size == 0:
        raise InputError(f"data.path: {path} is empty (0 bytes); give a file with a header and rows")
    if path.suffix.lower() not in READERS:
        raise InputError(f"data.path: {path} has suffix {path.suffix!r}; known are {', '.join(sorted(READERS))}")


def _read_csv(path: Path) -> pd.DataFrame:
    _check_csv_rows(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # mixed columns are reported by `numeric`, with their row
        try:
            return pd.read_csv(path, index_col=False, encoding="utf-8-sig")
        except pd.errors.ParserError as error:
            raise InputError(f"{path} is not valid CSV: {error}; look for a quote that is not closed") from error


def _check_csv_rows(path: Path) -> None:
    """Refuse what pandas would silently mend: short rows become NaN there, and a repeated name is changed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            _check_header(path, header)
            _check_names(path, header)
            for row in rows:
                if len(row) != len(header) and (row or len(header) == 1):
                    few = "too few" if len(row) < len(header) else "too many"
                    raise InputError(
                        f"{path}, line {rows.line_num}: {few} fields, {len(row)} where the header has {len(header)}; "
                        "complete the row or remove it"
                    )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not valid CSV: {error}") from error


def _check_header(path: Path, header: list[str]) -> None:
    """Refuse other separators than commas, and a first row of data in the header's place."""
    separators = [repr(separator) for separator in ";\t|" if separator in "".join(header)]
    if len(header) == 1 and separators:
        raise InputError(f"{path}: columns seem to be separated by {separators[0]}; write the file with commas")
    counted = [str(number) for number in range(len(header))]
    if header != counted and all(_is_number(name) for name in header):
        raise InputError(f"{path}: the first line, {','.join(header[:4])}..., has numbers for names; add a header line")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
    _check_names(path, table.column_names)
    return table.to_pandas(ignore_metadata=True)  # which would hide a column that pandas used as an index


def _check_names(path: Path, names: list[str]) -> None:
    repeated = [repr(name) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: duplicate column name {', '.join(repeated)}; every column needs its own name")
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} has no name; name it, or, if it is an index that pandas wrote, write the "
            "file with index=False"
        )


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": _read_csv, ".parquet": _read_parquet}


def numeric(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with every column as float64.

    Raises:
        InputError: Naming column, row and value of the first cell that is not a finite number.
    """
    return pd.DataFrame({name: _numbers(table[name]) for name in table.columns})


def _numbers(column: pd.Series) -> pd.Series:
    if column.dtype.kind in "mM":
        raise InputError(f"column {column.name!r} holds dates or durations; leave it out with data.exclude, or write numbers")
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    bad = ~numbers.map(math.isfinite)
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"column {column.name!r}, row {row + 1}: {_what(column.iloc[row])}; mend the cell, or leave the column out with "
            f"data.exclude"
        )
    return numbers


def _what(value: Any) -> str:
    if isinstance(value, str) or not pd.api.types.is_scalar(value):
        return f"expected a number, got {value!r}"
    return "expected a finite number, got an empty cell or NaN" if pd.isna(value) else f"expected a finite number, got {value}"
