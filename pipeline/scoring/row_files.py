"""Tables that are written some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.base.files import sync


class RowWriter(Protocol):
    """Takes tables row by row."""

    def write(self, rows: pd.DataFrame) -> None:
        """Add rows."""


class _Rows:
    """Writes Parquet or CSV, whose columns are those of the first rows."""

    def __init__(self, path: Path, suffix: str) -> None:
        self._path, self._suffix = path, suffix
        self._writer: pq.ParquetWriter | pa.csv.CSVWriter | None = None

    def write(self, rows: pd.DataFrame) -> None:
        """Add rows."""
        table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata()
        if self._writer is None:
            kind = pq.ParquetWriter if self._suffix == ".parquet" else pa.csv.CSVWriter
            self._writer = kind(str(self._path), table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def writing(target: Path) -> Iterator[RowWriter]:
    """A file that appears when the block ends without an error; what was there stays until then."""
    partial = target.with_name(f".{target.name}.partial")
    rows = _Rows(partial, target.suffix)
    try:
        yield rows
        rows.close()
        sync(partial)
        partial.replace(target)
    finally:
        rows.close()
        partial.unlink(missing_ok=True)
