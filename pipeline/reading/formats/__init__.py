"""Tables from files: one reader per format, recognised by the content."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.anndata import AnnData
from pipeline.reading.formats.arrays import Idx, Matlab, Npy, Npz
from pipeline.reading.formats.foreign import UNPACK, check_kind
from pipeline.reading.formats.hdf5 import MatlabHdf5
from pipeline.reading.formats.images import Pictures
from pipeline.reading.formats.parquet import Parquet
from pipeline.reading.formats.reader import LISTED, Reader, batch_rows, head_of, is_hidden, packing
from pipeline.reading.formats.text import TabSeparated, Text
from pipeline.tables.schema import SPLITS

HELD = dict.fromkeys("biuf", "numbers") | {"M": "dates"}  # of a column, by that of its dtype
# the first that recognises a file reads it
READERS: tuple[type[Reader], ...] = (Parquet, Npy, Npz, Idx, Matlab, MatlabHdf5, AnnData, Pictures, TabSeparated, Text)


class RawFile(NamedTuple):
    """A file or folder.

    Attributes:
        path: Where it is.
        data: The params, as they are for this file.
        split: The split that its rows are for, if that is settled.
    """

    path: Path
    data: Data
    split: str | None = None

    def reader(self) -> type[Reader]:
        """The reader that recognises it.

        Raises:
            InputError: If none does, or an option is not for its format.
        """
        reader = reader_of(self.path)
        if self.data.layout is not None and "layout" not in reader.takes:
            raise InputError(f"data.layout: is for arrays, which {self.path} is not; set it to null")
        return reader


def read_blocks(data: Data) -> Iterator[tuple[pd.DataFrame, NDArray[np.int8]]]:
    """The rows of all files that ``data`` names, in their order, and for each the split it is for.

    As many at a time as `batch_rows` says for so many columns, whatever files they come from; the last block may be smaller.
    The split is its position in SPLITS, or -1.

    Raises:
        InputError: If a file is missing, empty, of an unknown format, malformed, names a column twice, or lacks one of the
            first, or adds one, that is not excluded.
    """
    held: list[pd.DataFrame] = []
    labels: list[NDArray[np.int8]] = []
    for batch, split in _batches(data):
        size, held = batch_rows(len(batch.columns)), [*held, batch]
        labels.append(np.full(len(batch), -1 if split is None else SPLITS.index(split), dtype=np.int8))
        while sum(map(len, held)) >= size:
            table, splits = _joined(held), np.concatenate(labels)
            yield table[:size], splits[:size]
            held, labels = [table[size:]], [splits[size:]]
    if sum(map(len, held)):
        yield _joined(held), np.concatenate(labels)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    parts = [part for part in parts if len(part)]
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def _batches(data: Data) -> Iterator[tuple[pd.DataFrame, str | None]]:
    """What the readers give, in the columns of the first file, checked to be of one table, and the split of each file."""
    first: list[str] = []
    kinds: dict[str, str] = {}  # what the columns hold so far
    for file in raw_files(data):
        rows = 0
        for batch in file.reader().batches(file.path, file.data):
            names, rows = list(batch.columns), rows + len(batch)
            if names != (first := first or names):
                needed = [name for name in first if name not in data.exclude]
                lost = [
                    f"it lacks {name!r}; add it, or leave it out with data.exclude" for name in needed if name not in names
                ]
                more = [name for name in names if name not in first and name not in data.exclude]
                if odd := [*lost, *(f"it adds {name!r}; leave it out of that file" for name in more)]:
                    raise InputError(f"data.files: {file.path} has other columns than the first; {odd[0]}")
                batch = batch.reindex(columns=first)
            for name, column in batch.items():
                kind, known = HELD.get(column.dtype.kind, "texts"), kinds.get(str(name))
                if kind != known and column.notna().any():
                    if known is not None:
                        also = f"holds {known} in one file and {kind} in another"
                        raise InputError(f"{file.path}: column {name!r} {also}; write it alike in all")
                    kinds[str(name)] = kind
            yield batch, file.split
        if not rows:
            raise InputError(f"data.path: {file.path} has no rows")


def raw_files(data: Data) -> list[RawFile]:
    """The files that ``data`` names, or the folder.

    Raises:
        InputError: If ``data.files`` names other files than that which ``data.path`` is, or an array of a file without any.
    """
    path = Path(data.path)
    if data.files is None:
        return [RawFile(path, data)]
    folder = path.parent if path.is_file() else path
    files = []
    for split, name in data.files.model_dump().items():
        if name is not None:
            file, key = located(folder, name)
            if path.is_file() and file != path:
                raise InputError(f"data.files.{split}: {file} is not {path}, which data.path names; set that to {folder}")
            if key is not None and "key" not in reader_of(file).takes:
                raise InputError(f"data.files.{split}: {file} has no arrays with names; name it without {':' + key!r}")
            files.append(RawFile(file, data if key is None else data.model_copy(update={"key": key}), split))
    return files


def located(folder: Path, name: str) -> tuple[Path, str | None]:
    """The file that ``data.files`` names, and the array in it; a file that is called so comes first."""
    colons = [place for place, sign in enumerate(name) if sign == ":"]
    for place in () if (folder / name).exists() else reversed(colons):
        if place and (folder / name[:place]).is_file():
            return folder / name[:place], name[place + 1 :]
    return folder / name, None


def unread(data: Data) -> Iterator[str]:
    """Sentences on the files in folders that ``data`` names, of which nothing is read."""
    for file in raw_files(data):
        if names := reader_of(file.path).unread(file.path):
            kinds = Counter("hidden" if is_hidden(Path(name)) else Path(name).suffix or "without a suffix" for name in names)
            counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(LISTED))
            listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
            yield f"not read in {file.path}: {counted} ({listed})"


def check_files(data: Data) -> None:
    """Refuse what cannot be a table without reading it.

    Raises:
        InputError: If a file lies outside the repository, is missing, empty, or of an unknown format.
    """
    for file in raw_files(data):
        path = file.path
        if is_outside(path):
            raise InputError(
                f"data.path: {path} lies outside the repository, where its versions cannot be kept; copy it into data/raw/ "
                "and run `dvc add` on it, or `dvc import-url` it from where it is"
            )
        file.reader()


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
    check_kind(path, head)
    for reader in READERS:
        if reader.recognises(path, head):
            if (how := packing(path)) is not None and not reader.unpacks:
                raise InputError(f"{path} is compressed by {how}, and {reader.__name__} is not read so; {UNPACK}")
            return reader
    raise InputError(
        f"data.path: {path} is a folder without Parquet files or images; name the file in it, or, in data.files, the files "
        "of the splits"
    )


def format_of(data: Data) -> str:
    """The suffix of samples: those of a table are a table, those of an array an array."""
    return reader_of(raw_files(data)[0].path).suffix


def is_outside(path: Path) -> bool:
    """Whether a path leads out of the repository."""
    return path.is_absolute() or Path(os.path.normpath(path)).parts[:1] == ("..",)
