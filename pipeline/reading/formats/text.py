"""CSV and TSV. Texts stay texts; `columns` finds what is a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.reader import Reader, batch_rows, check_names, opened

SEPARATORS = ",;\t|"
LONGEST = 2**28  # characters of a line


class Text(Reader):
    """Rows of text, their fields separated by a character, with or without names in the first line."""

    suffix = ".csv"
    separator = ","

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return path.is_file()

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        separator = data.delimiter or cls.separator
        header = _check_rows(path, separator, data)
        try:
            with (
                opened(path) as file,
                pd.read_csv(
                    file,
                    sep=separator,
                    names=header,
                    header=0 if data.header else None,
                    index_col=False,
                    dtype=str,
                    keep_default_na=False,
                    encoding="utf-8-sig",
                    chunksize=batch_rows(len(header)),
                ) as parts,
            ):
                yield from parts
        except pd.errors.ParserError as error:
            raise InputError(f"{path} is not valid CSV: {error}; look for a quote that is not closed") from error


class TabSeparated(Text):
    """Rows of text, their fields separated by tabs."""

    suffix = ".tsv"
    separator = "\t"

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return path.is_file() and ".tsv" in path.suffixes


def _check_rows(path: Path, separator: str, data: Data) -> list[str]:
    """The names of the columns; refuse what pandas would silently mend, such as short rows, which become NaN there."""
    try:
        with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(_lines(path, file), delimiter=separator)
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
    return header


def _lines(path: Path, file: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a file; what a few compressed bytes make endless is not read into memory."""
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise InputError(f"{path} has a line of {LONGEST:,} characters or more; give a table of rows on a line each")
        yield line


def _header(path: Path, first: list[str], separator: str, data: Data) -> list[str]:
    """The names of the columns; refuse another separator, and a first row of data in the header's place."""
    others = [other for other in SEPARATORS if other != separator and other in "".join(first)]
    if len(first) == 1 and others:
        raise InputError(
            f"{path}: columns seem to be separated by {others[0]!r}, not by {separator!r}; set data.delimiter to it"
        )
    counted = [str(number) for number in range(len(first))]
    if not data.header:
        return counted
    as_numbers = pd.Series(first, dtype=str).str.lower().replace("nan", "0")
    if first != counted and pd.to_numeric(as_numbers, errors="coerce").notna().all():
        raise InputError(
            f"{path}: the first line, {','.join(first[:4])}..., has numbers for names; if it is data, set data.header: false"
        )
    check_names(path, first)
    return first
