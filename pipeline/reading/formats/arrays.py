"""Arrays of numbers: NumPy's files, IDX as MNIST is published, and MATLAB's versions 4 to 7."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.foreign import not_unpacked
from pipeline.reading.formats.layout import axes, in_rows
from pipeline.reading.formats.reader import ZIP, Reader, batch_rows, check_size, chosen, frame, members, opened

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
MATLAB_NUMBERS = ("double", "single", "logical", "sparse", *INTEGERS)
MATLAB_4_HEADER = 20  # bytes
MATLAB_4_KINDS = [10 * number + kind for number in range(6) for kind in range(3)]


class Npy(Reader):
    """One array; its first axis counts the rows, unless ``data.layout`` says otherwise."""

    takes = frozenset(["layout"])
    unpacks = False

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(b"\x93NUMPY")

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise _damaged(path, "NPY", error) from error
        yield from _rows(path, array, data)


class Npz(Reader):
    """Several arrays, of which ``data.key`` names one."""

    takes = frozenset(["key", "layout"])

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(ZIP)

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        try:
            with zipfile.ZipFile(path) as archive:
                held = {info.filename: info.file_size for info in members(archive)}
            sizes = {name.removesuffix(".npy"): size for name, size in held.items() if name.endswith(".npy")}
            if not sizes:
                raise not_unpacked(path, list(held))
            key = chosen(path, list(sizes), data)
            check_size(path, sizes[key])
            with np.load(path, allow_pickle=False) as arrays:
                array = arrays[key]
        except InputError:
            raise
        except Exception as error:  # the library raises many kinds for damaged files
            raise _damaged(path, "ZIP or NPZ", error) from error
        yield from _rows(path, array, data)


class Idx(Reader):
    """One array of IDX, the format of MNIST, compressed or not."""

    takes = frozenset(["layout"])

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return len(head) > 4 and head[:2] == b"\0\0" and head[2] in IDX_TYPES and 1 <= head[3] <= 8

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        with opened(path) as file:
            _, _, kind, rank = file.read(4)
            sizes = struct.unpack(f">{rank}I", _exactly(path, file, 4 * rank))
            dtype, width = np.dtype(IDX_TYPES[kind]), math.prod(sizes[1:])
            check_size(path, math.prod(sizes) * dtype.itemsize)
            size, order = batch_rows(width), axes(path, sizes, data)
            if order[0]:
                raise InputError(f"data.layout: rows follow each other in {path}; set it to NCHW or NHWC, or to null")
            for first in range(0, sizes[0], size):
                count = min(size, sizes[0] - first)
                rows = np.frombuffer(_exactly(path, file, count * width * dtype.itemsize), dtype)
                yield frame(rows.astype(dtype.newbyteorder("=")).reshape(count, *sizes[1:]).transpose(order))
            if file.read(1):
                raise InputError(f"{path} is longer than the {math.prod(sizes):,} values that it declares; get it again")


def is_matlab_4(head: bytes) -> bool:
    """Whether a file begins as those of MATLAB's version 4 do: with the kind, size and name of the first variable."""
    for order, thousands in (("<", 0), (">", 1000)) if len(head) > MATLAB_4_HEADER else ():
        kind, rows, columns, imaginary, length = struct.unpack(f"{order}5i", head[:MATLAB_4_HEADER])
        name = head[MATLAB_4_HEADER : MATLAB_4_HEADER + max(0, length)]
        named = name.endswith(b"\0") and name[:-1].decode("latin-1").isidentifier()
        if kind - thousands in MATLAB_4_KINDS and min(rows, columns) >= 0 and imaginary in (0, 1) and named:
            return True
    return False


class Matlab(Reader):
    """A MATLAB file up to version 7, of whose variables ``data.key`` names one."""

    takes = frozenset(["key", "layout"])
    unpacks = False

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(b"MATLAB 5.0 MAT-file") or is_matlab_4(head)

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        from scipy.io import loadmat, whosmat

        try:
            held = {name: (shape, kind) for name, shape, kind in whosmat(path)}
            key = chosen(path, list(held), data)
            shape, kind = held[key]
            if kind not in MATLAB_NUMBERS:
                raise InputError(f"{path}: {key} holds {kind}, not numbers; save a matrix of numbers")
            check_size(path, 8 * math.prod(shape))
            array = loadmat(path, variable_names=[key])[key]
        except InputError:
            raise
        except Exception as error:  # the library raises many kinds for damaged files
            raise _damaged(path, "MATLAB", error) from error
        yield from _rows(path, array if isinstance(array, np.ndarray) else array.toarray(), data)


def _rows(path: Path, array: NDArray[Any], data: Data) -> Iterator[pd.DataFrame]:
    def part(axis: int, rows: slice) -> NDArray[Any]:
        return np.asarray(array[(slice(None),) * axis + (rows,)])

    yield from in_rows(path, array.shape, array.dtype, part, data)


def _exactly(path: Path, file: Any, size: int) -> bytes:
    content = cast(bytes, file.read(size))
    if len(content) < size:
        raise InputError(f"{path} is truncated: {size - len(content)} bytes are missing at its end; get the file again")
    return content


def _damaged(path: Path, kind: str, error: Exception) -> InputError:
    if any(word in str(error) for word in ("allow_pickle", "Object arrays", "Python objects")):
        return InputError(f"{path}: holds Python objects, which are not loaded, as they could execute code; save numbers")
    return InputError(f"{path} is not a readable {kind} file: {error}; get the file again")
