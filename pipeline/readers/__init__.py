"""Tables from files: one reader per format, recognised by the content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.readers.arrays import Idx, Matlab, Npy, Npz
from pipeline.readers.base import Reader, head_of
from pipeline.readers.images import Images
from pipeline.readers.parquet import Parquet
from pipeline.readers.text import TabSeparated, Text
from pipeline.sections import Data

# the first that recognises a file reads it
READERS: tuple[type[Reader], ...] = (Parquet, Npy, Npz, Idx, Matlab, Images, TabSeparated, Text)


class Source(NamedTuple):
    """A file or folder, and the split that its rows are for, if that is settled."""

    path: Path
    split: str | None = None


def read_table(data: Data) -> tuple[pd.DataFrame, NDArray[np.object_]]:
    """The rows of all files that ``data`` names, in their order, and for each the split it is for, or None.

    Raises:
        InputError: If a file is missing, empty, of an unknown format, malformed, names a column twice, or has other columns
            than the first.
    """
    parts: list[pd.DataFrame] = []
    splits: list[str | None] = []
    for source in sources(data):
        part = pd.concat(_batches(source, data), ignore_index=True)
        if parts and list(part.columns) != list(parts[0].columns):
            raise InputError(f"data.files: {source.path} has other columns than the first; {_difference(part, parts[0])}")
        parts.append(part)
        splits += [source.split] * len(part)
    return pd.concat(parts, ignore_index=True), np.array(splits, dtype=object)


def sources(data: Data) -> list[Source]:
    """The files that ``data`` names, or the folder."""
    path = Path(data.path)
    if data.files is None:
        return [Source(path)]
    return [Source(path / name, split) for split, name in data.files.model_dump().items() if name is not None]


def check_files(data: Data) -> None:
    """Refuse what cannot be a table without reading it.

    Raises:
        InputError: If a file lies outside the repository, is missing, empty, or of an unknown format.
    """
    for source in sources(data):
        _check_place(source.path)
        reader_of(source.path)


def reader_of(path: Path) -> type[Reader]:
    """The reader that recognises a file or folder.

    Raises:
        InputError: If none does, or there is nothing to read.
    """
    if not path.exists():
        raise InputError(f"data.path: {path} does not exist; put the file there or name another one in params.yaml")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"data.path: {path} is empty (0 bytes); give a file with a header and rows")
    head = head_of(path)
    for reader in READERS:
        if reader.recognises(path, head):
            return reader
    raise InputError(
        f"data.path: {path} is a folder without Parquet files or images; name the file in it, or, in data.files, the files "
        "of the splits"
    )


def format_of(data: Data) -> str:
    """The suffix of samples: those of a table are a table, those of an array an array."""
    return reader_of(sources(data)[0].path).suffix


def _batches(source: Source, data: Data) -> Iterator[pd.DataFrame]:
    rows = 0
    for batch in reader_of(source.path).batches(source.path, data):
        rows += len(batch)
        yield batch
    if not rows:
        raise InputError(f"data.path: {source.path} has no rows")


def _check_place(path: Path) -> None:
    if path.is_absolute() or Path(os.path.normpath(path)).parts[:1] == ("..",):
        raise InputError(
            f"data.path: {path} lies outside the repository, where its versions cannot be kept; copy it into data/raw/ and "
            "run `dvc add` on it, or `dvc import-url` it from where it is"
        )


def _difference(part: pd.DataFrame, first: pd.DataFrame) -> str:
    for one, other, what in ((first, part, "lacks"), (part, first, "adds")):
        if missing := [name for name in one.columns if name not in set(other.columns)]:
            return f"it {what} {missing[0]!r}"
    return "their order differs"
