"""Tables from files: one reader per format, chosen by the suffix. Texts stay texts; `columns` finds what is a number."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.sections import Data

COMPRESSED = (".gz", ".bz2", ".zst")
SEPARATORS = ",;\t|"


def read_table(path: Path, data: Data) -> pd.DataFrame:
    """Read the table at ``path``; columns keep their names, rows their order.

    Raises:
        InputError: If the file is missing, empty, of an unknown format, malformed, or names a column twice.
    """
    check_file(path)
    table = READERS[suffix_of(path)](path, data)
    if not len(table):
        raise InputError(f"data.path: {path} has a header but no rows")
    return table


def suffix_of(path: Path) -> str:
    """What says the format: the suffix, without that of a compression."""
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return plain.suffix.lower()


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
    if suffix_of(path) not in READERS:
        known = f"{', '.join(sorted(READERS))}; compressed ones also {', '.join(COMPRESSED)}"
        raise InputError(f"data.path: {path} has suffix {path.suffix!r}; known are {known}")


def _read_text(path: Path, data: Data, separator: str) -> pd.DataFrame:
    separator = data.delimiter or separator
    header = _check_rows(path, separator, data)
    try:
        return pd.read_csv(
            path,
            sep=separator,
            names=header,
            header=0 if data.header else None,
            index_col=False,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
    except pd.errors.ParserError as error:
        raise InputError(f"{path} is not valid CSV: {error}; look for a quote that is not closed") from error


def _check_rows(path: Path, separator: str, data: Data) -> list[str]:
    """The names of the columns; refuse what pandas would silently mend, such as short rows, which become NaN there."""
    try:
        with _open(path) as file:
            rows = csv.reader(file, delimiter=separator)
            first = next(rows, [])
            header = _header(path, first, separator, data)
            for row in rows:
                if len(row) != len(first) and (row or len(first) == 1):
                    few = "too few" if len(row) < len(first) else "too many"
                    raise InputError(
                        f"{path}, line {rows.line_num}: {few} fields, {len(row)} where the first line has {len(first)}; "
                        "complete the row or remove it"
                    )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not valid CSV: {error}") from error
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be decompressed, it may be truncated: {error}; get the file again") from error
    return header


def _open(path: Path) -> TextIO:
    stream = pa.input_stream(str(path), compression="detect" if path.suffix.lower() in COMPRESSED else None)
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _header(path: Path, first: list[str], separator: str, data: Data) -> list[str]:
    """The names; refuse another separator, and a first row of data in the header's place."""
    others = [other for other in SEPARATORS if other != separator and other in "".join(first)]
    if len(first) == 1 and others:
        raise InputError(
            f"{path}: columns seem to be separated by {others[0]!r}, not by {separator!r}; set data.delimiter to it"
        )
    counted = [str(number) for number in range(len(first))]
    if not data.header:
        return counted
    if first != counted and all(_is_number(name) for name in first):
        raise InputError(
            f"{path}: the first line, {','.join(first[:4])}..., has numbers for names; if it is data, set data.header: false"
        )
    _check_names(path, first)
    return first


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, data: Data) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
    _check_names(path, table.column_names)
    table = table.cast(pa.schema([pa.field(field.name, _plain(field.type)) for field in table.schema]))
    return table.to_pandas(ignore_metadata=True)  # which would hide a column that pandas used as an index


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that pandas has numbers, texts or dates for."""
    if pa.types.is_boolean(kind):
        return pa.int8()
    if pa.types.is_decimal(kind):
        return pa.float64()
    return pa.timestamp("ms") if pa.types.is_date(kind) else kind


def _check_names(path: Path, names: list[str]) -> None:
    repeated = [repr(name) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: duplicate column name {', '.join(repeated)}; every column needs its own name")
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} has no name; name it, or, if it is an index that pandas wrote, write the "
            "file with index=False"
        )


READERS: dict[str, Callable[[Path, Data], pd.DataFrame]] = {
    ".csv": lambda path, data: _read_text(path, data, ","),
    ".tsv": lambda path, data: _read_text(path, data, "\t"),
    ".parquet": _read_parquet,
}
