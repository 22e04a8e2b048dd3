"""Parquet: one file, or a folder of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.reader import Reader, batch_rows, check_names, files_beside, is_hidden

BUFFER = 2**18  # bytes of a column that are read at a time, not all of a row group


class Parquet(Reader):
    """A Parquet file, or a folder of them, whose rows follow each other in the order of their names."""

    suffix = ".parquet"
    unpacks = False

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1") or path.suffix.lower() == ".parquet" or bool(_parts(path))

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        for part in parts_of(path):
            try:
                with pq.ParquetFile(part, buffer_size=BUFFER, pre_buffer=False) as file:
                    kinds = _plain_types(part, file.schema_arrow)
                    for batch in file.iter_batches(batch_rows(len(kinds))):
                        # without the metadata, which would hide a column that pandas used as an index
                        yield batch.cast(kinds).to_pandas(ignore_metadata=True)
            except (pa.ArrowInvalid, OSError) as error:
                remedy = "get the file again, or, if it is of another format, give it that one's suffix"
                raise InputError(f"{part} is not a readable Parquet file: {error}; {remedy}") from error

    @override
    @classmethod
    def unread(cls, path: Path) -> list[str]:
        return files_beside(path, _parts(path)) if path.is_dir() else []


def parts_of(path: Path) -> list[Path]:
    """The Parquet file at a path, or those of the folder."""
    return _parts(path) or [path]


def row_groups(path: Path) -> Iterator[tuple[Path, int, int]]:
    """The row groups of the file or of those in the folder: the file of each, its number there, and its rows."""
    for part in parts_of(path):
        metadata = pq.read_metadata(part)
        yield from ((part, number, metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups))


def read_group(path: Path, number: int) -> pd.DataFrame:
    """The rows of one row group, as `Parquet` reads them."""
    with pq.ParquetFile(path) as file:
        kinds = _plain_types(path, file.schema_arrow)
        return file.read_row_group(number).cast(kinds).to_pandas(ignore_metadata=True)


def _parts(path: Path) -> list[Path]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else []
    return [file for file in files if not is_hidden(file.relative_to(path))]


def _plain_types(path: Path, schema: pa.Schema) -> pa.Schema:
    check_names(path, schema.names)
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that pandas has numbers, texts or dates for."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_boolean(kind):
        return pa.int8()
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return pa.float64()
    return pa.timestamp("ms") if pa.types.is_date(kind) else kind
