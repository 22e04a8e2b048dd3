"""What a format is, and what several of them need."""

from __future__ import annotations

import io
import lzma
import os
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO, ClassVar, Protocol, cast

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.tables.schema import SPLITS

ROWS, CELLS = 2**16, 2**24  # that are read at a time, at most
HEAD = 512  # bytes by which a format is recognised
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz"}
ZIP = b"PK\x03\x04"
LISTED = 8  # names in a message
PARTS = ("train", "test", "valid", "val", "dev")  # in the names of arrays that are for splits


class Reader(ABC):
    """A format of tables.

    Attributes:
        suffix: What ends the name of a file of samples, of a model of such a table.
        takes: Options of ``data`` that are for this format and not for all: ``key`` and ``layout``.
        unpacks: Whether it reads compressed files.
    """

    suffix: ClassVar[str] = ".npy"
    takes: ClassVar[frozenset[str]] = frozenset()
    unpacks: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Whether a file that begins so, decompressed, or a folder, is of this format."""

    @classmethod
    @abstractmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        """The rows in their order, so many at a time, all with the same columns.

        Raises:
            InputError: If the file is damaged or holds no table.
        """

    @classmethod
    def unread(cls, path: Path) -> list[str]:
        """The names of files in a folder that are no part of the table."""
        return []


def batch_rows(columns: int) -> int:
    """Rows that are read at a time of a table of so many columns."""
    return max(1, min(ROWS, CELLS // max(1, columns)))


def head_of(path: Path) -> bytes:
    """The first bytes of a file, decompressed; none of a folder."""
    if path.is_dir():
        return b""
    with opened(path) as file:
        return file.read(HEAD)


def is_hidden(path: PurePath) -> bool:
    """Whether a path in a folder or an archive is one that programs keep for themselves."""
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in path.parts)


def files_beside(folder: Path, read: Iterable[Path]) -> list[str]:
    """The names of the files in a folder that are not among those that are read."""
    known = set(read)
    return [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file() and file not in known]


def members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files in an archive, without those that programs keep for themselves."""
    return [info for info in archive.infolist() if not info.is_dir() and not is_hidden(PurePath(info.filename))]


def packing(path: Path) -> str | None:
    """How a file is compressed, if it is: also as the only file in a ZIP archive, unless that is an array."""
    if path.is_dir():
        return None
    with path.open("rb") as file:
        begin = file.read(6)
    if begin.startswith(ZIP):
        try:
            with zipfile.ZipFile(path) as archive:
                held = members(archive)
        except Exception:  # the library raises many kinds for damaged files, which its reader says
            return None
        return "zip" if len(held) == 1 and not held[0].filename.endswith(".npy") else None
    return next((name for magic, name in COMPRESSED.items() if begin.startswith(magic)), None)


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed.

    Raises:
        InputError: If it is encrypted; when read, if it is truncated.
    """
    how = packing(path)
    if how in STREAMS:
        return cast(BinaryIO, io.BufferedReader(_Decompressed(path, STREAMS[how](path))))
    return cast(BinaryIO, io.BufferedReader(_Decompressed(path, pa.input_stream(str(path), compression=how))))


def only_member(path: Path) -> Stream:
    """The only file in a ZIP archive; nothing is written to the disk, so that its name leads nowhere."""
    archive = zipfile.ZipFile(path)
    (member,) = members(archive)
    if member.flag_bits & 1:
        raise InputError(f"{path}: {member.filename} is encrypted in it; unpack it with its password, and name that file")
    try:
        return archive.open(member)
    except Exception as error:  # as above
        raise InputError(f"{path} cannot be decompressed: {error}; unpack it, and name the file that was in it") from error


class Stream(Protocol):
    """Bytes that are decompressed as they are read."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, none at the end."""

    def close(self) -> None:
        """Read no more."""


STREAMS: Mapping[str | None, Callable[[Path], Stream]] = {"xz": lzma.open, "zip": only_member}  # the others are pyarrow's


class _Decompressed(io.RawIOBase):
    """A decompressed stream whose errors are ours."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._path, self._stream = path, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            content = self._stream.read(len(buffer))
        except Exception as error:  # as above, of five libraries
            raise InputError(
                f"{self._path} cannot be decompressed, it may be truncated: {error}; get the file again"
            ) from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def frame(values: NDArray[np.generic]) -> pd.DataFrame:
    """Rows of numbers, of any shape each, as a table whose columns are numbered from 0."""
    flat = values.reshape(len(values), -1)
    flat = flat.astype(np.int8) if flat.dtype == bool else flat
    return pd.DataFrame(flat, columns=[str(number) for number in range(flat.shape[1])])


def check_numbers(path: Path, kind: np.dtype) -> None:
    """Refuse arrays of anything but numbers: objects would be pickles."""
    if kind.kind not in "biuf":
        raise InputError(f"{path}: holds {kind}, not numbers; save it as an array of numbers, or a table of texts as Parquet")


def check_size(path: Path, size: int) -> None:
    """Refuse what says of itself that it is larger than this machine's memory, before it is decompressed."""
    memory = psutil.virtual_memory().total
    if size > memory:
        raise InputError(
            f"{path}: declares {size / 2**30:,.1f} GiB, more than this machine's {memory / 2**30:.1f} GiB of memory; if that "
            "is so, give a part of it, or Parquet"
        )


def check_names(path: Path, names: Sequence[str], how: str = "") -> None:
    """Refuse columns without a name, or with that of another, and say ``how`` to give them."""
    repeated = [repr(name) for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: duplicate column name {', '.join(repeated)}; every column needs its own name{how}")
    if "" in names:
        raise InputError(
            f"{path}: column {list(names).index('') + 1} has no name; name it, or, if it is an index that pandas wrote, write "
            f"the file with index=False{how}"
        )


def chosen(path: Path, keys: Sequence[str], data: Data) -> str:
    """The array that ``data.key`` names, or the only one."""
    if data.key is None and len(keys) == 1:
        return keys[0]
    if data.key is None or data.key not in keys:
        root, listed = Path(data.path), ", ".join(keys[:LISTED]) or "none"
        name = os.path.relpath(path, root if root.is_dir() else root.parent)
        own = ", ".join(f'{split}: "{name}:{key}"' for split, key in of_splits(keys).items())
        or_else = f"; or give each split its own, data.files: {{{own}}}" if own else ""
        which = f"must name one of the arrays in {path}, which are {listed}; got {data.key!r} (of a command: --key)"
        raise InputError(f"data.key: {which}{or_else}")
    return data.key


def of_splits(keys: Iterable[str]) -> dict[str, str]:
    """The arrays of a file whose names differ in the split that they are for; none if that is not so."""
    stems: dict[str, dict[str, str]] = {}
    for key in keys:
        for part in PARTS:
            stem, split = key.lower().replace(part, "\0", 1), "valid" if part in ("val", "dev") else part
            if "\0" in stem:
                stems.setdefault(stem, {}).setdefault(split, key)
                break
    whole = [splits for splits in stems.values() if "train" in splits and len(splits) > 1]
    return {split: whole[0][split] for split in SPLITS if split in whole[0]} if whole else {}
