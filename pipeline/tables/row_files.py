"""Tables that are written some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.base.files import sync

GROUP = 2**14  # rows of a Parquet file that are compressed together


class RowFile:
    """A Parquet or CSV file, whose columns are those of the first rows; complete when a ``with`` block ends.

    Args:
        path: Where to write it.
        suffix: ``.parquet`` or ``.csv``; that of the path by default.
    """

    def __init__(self, path: Path, suffix: str | None = None) -> None:
        self._path, self._suffix = path, suffix or path.suffix
        self._writer: pq.ParquetWriter | pa.csv.CSVWriter | None = None
        self._schema: pa.Schema | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: pd.DataFrame) -> None:
        """Add rows."""
        table = pa.Table.from_pandas(rows, schema=self._schema, preserve_index=False).replace_schema_metadata()
        self._schema = table.schema
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table, self._waiting = pa.concat_tables(self._waiting), []
            if self._writer is None:
                kind = pq.ParquetWriter if self._suffix == ".parquet" else pa.csv.CSVWriter
                self._writer = kind(str(self._path), self._schema)
            self._writer.write_table(table)


@contextmanager
def writing(target: Path) -> Iterator[RowFile]:
    """A file that appears when the block ends without an error; what was there stays until then."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        with RowFile(partial, target.suffix) as rows:
            yield rows
        sync(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
