"""CSV and TSV, read by Python's csv alone. Texts stay texts; `columns` finds what is a number."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import WHITESPACE, Data
from pipeline.reading.formats.reader import Reader, batch_rows, check_names, opened

SEPARATORS = ",;\t|"
LONGEST = 2**28  # characters of a line
AT_A_TIME, LEAST_ROWS = 2**13, 64  # fields, but at least rows, that are held as Python's objects: more take longer

Rows = Iterator[list[str]]


class Text(Reader):
    """Rows of text, their fields separated by a character, with or without names in the first line.

    Fields may be quoted, spaces around them are not part of them, and empty lines are no rows.
    """

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
        try:
            with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
                lines = _lines(path, file, separator)
                begin = _first_line(path, next(lines, ""), separator)
                rows = csv.reader(
                    chain([begin], lines),
                    delimiter=" " if separator == WHITESPACE else separator,
                    skipinitialspace=separator != " ",
                    strict=True,
                )
                first = next(rows, [])
                names = _header(path, first, separator, data)
                checked = _checked(path, rows, len(names))
                checked = checked if data.header else chain([first], checked)
                size, step = batch_rows(len(names)), max(LEAST_ROWS, AT_A_TIME // len(names))
                while parts := list(islice(_tables(checked, names, step), max(1, size // step))):
                    yield pa.concat_tables(parts).to_pandas()
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
        except csv.Error as error:
            raise InputError(
                f"{path}, line {rows.line_num}: not valid CSV: {error}; look for a quote that is not closed, here or above, "
                "or that stands for itself in a field, where it must be doubled"
            ) from error


class TabSeparated(Text):
    """Rows of text, their fields separated by tabs."""

    suffix = ".tsv"
    separator = "\t"

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return path.is_file() and ".tsv" in path.suffixes


def sniffed(path: Path, data: Data) -> Data:
    """The params with the separator that the first lines of a text have, unless they name one, or there is none.

    Of comma, semicolon, tab, bar and white space the first that divides all of them into the same number of fields, more
    than one; no comma that stands in numbers between others, as in 0,5;1,5.
    """
    if data.delimiter is not None:
        return data
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", errors="replace", newline="") as file:
        head = list(islice(_lines(path, file, ","), 100))
    found = []
    for separator in (*SEPARATORS, WHITESPACE):
        sep = " " if separator == WHITESPACE else separator
        lines = [" ".join(line.split()) for line in head] if separator == WHITESPACE else head
        widths = {len(row) for row in csv.reader(lines, delimiter=sep, skipinitialspace=True) if row}
        if len(widths) == 1 and max(widths) > 1:
            found.append(separator)
    numbers = [rf"(^|{re.escape(other)})[-+]?\d+,\d+{re.escape(other)}" for other in found[1:] if other != WHITESPACE]
    around = [other for other, form in zip(found[1:], numbers, strict=False) if all(re.search(form, at) for at in head[1:])]
    separator = found[0] if found and found[0] != "," else (*around, ",")[0]
    return data if separator == "," else data.model_copy(update={"delimiter": separator})


def _tables(rows: Rows, names: list[str], size: int) -> Iterator[pa.Table]:
    """So many rows at a time, by column."""
    while some := list(islice(rows, size)):
        yield pa.table([pa.array(column, pa.string()) for column in zip(*some, strict=True)], names=names)


def _checked(path: Path, rows: Rows, width: int) -> Rows:
    """The rows that have fields; refuse those that have too few or too many."""
    empty = 0  # the first line without fields, where a row may have but one
    for row in rows:
        if len(row) == width and not empty:
            yield row
        elif row and empty:
            raise InputError(f'{path}, line {empty}: is empty; remove it, or write "" for a missing value')
        elif row:
            few, remedy = "too few", "complete the row or remove it"
            if len(row) > width:
                few, remedy = "too many", "remove what is too much, or quote it; remove lines above that are none of the table"
            where = f"{path}, line {rows.line_num}"  # type: ignore[attr-defined]
            raise InputError(f"{where}: {few} fields, {len(row)} where the first line has {width}; {remedy}")
        elif width == 1:
            empty = empty or rows.line_num  # type: ignore[attr-defined]


def _lines(path: Path, file: io.TextIOWrapper, separator: str) -> Iterator[str]:
    """The lines of a file; what a few compressed bytes make endless is not read into memory."""
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise InputError(f"{path} has a line of {LONGEST:,} characters or more; give a table of rows on a line each")
        if separator == WHITESPACE:
            if "\t" in line and '"' in line:
                raise InputError(f"{path}: has both tabs and quotes in a line; set data.delimiter to the one that separates")
            line = line.replace("\t", " ").strip() + "\n"
        yield line


def _first_line(path: Path, line: str, separator: str) -> str:
    """The first line, unless it is none of a table: JSON, or what tells Excel the separator."""
    if match := re.fullmatch(r"sep=(.?)\s*", line, re.IGNORECASE):
        other = repr(match[1] or separator)
        remedy = f"remove it and set data.delimiter: {other} (of a command: --delimiter)"
        raise InputError(f"{path}: the first line, {line.strip()!r}, is for Excel; {remedy}")
    if re.match(r'\s*(\[\s*)?\{\s*("|$)|\s*\[\s*$', line):
        raise InputError(
            f"{path} is JSON; write the table as Parquet or CSV, with pandas.read_json(..., lines=True).to_parquet(...) if it "
            "has an object on each line"
        )
    return line


def _header(path: Path, first: list[str], separator: str, data: Data) -> list[str]:
    """The names of the columns; refuse another separator or format, and a first row of data in the header's place."""
    others = [other for other in SEPARATORS if other != separator and other in "".join(first)]
    if len(first) == 1 and others:
        raise InputError(
            f"{path}: columns seem to be separated by {others[0]!r}, not by {separator!r}; set data.delimiter (of a command: "
            "--delimiter) to it"
        )
    counted = [str(number) for number in range(len(first))]
    if not data.header:
        return counted
    as_numbers = pd.Series(first, dtype=str).str.lower().replace("nan", "0")
    if first != counted and pd.to_numeric(as_numbers, errors="coerce").notna().all():
        raise InputError(
            f"{path}: the first line, {','.join(first[:4])}..., has numbers for names; if it is data, set data.header: false "
            "(of a command: --no-header); if they are names, put a letter before each"
        )
    check_names(path, first)
    return first
