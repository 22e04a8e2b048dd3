"""HDF5, and MATLAB's files of version 7.3, which are of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.arrays import MATLAB_NUMBERS
from pipeline.reading.formats.layout import in_rows
from pipeline.reading.formats.reader import Reader, chosen

if TYPE_CHECKING:
    import h5py


@contextmanager
def hdf5(path: Path, kind: str) -> Iterator[h5py.File]:
    """An HDF5 file of a kind, open.

    Raises:
        InputError: If there is no library for it, or the file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: {kind} files need h5py; pip install h5py==3.16.0") from error
    try:
        with h5py.File(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # the library raises many kinds for damaged files
        raise InputError(f"{path} is not a readable {kind} file: {error}; get the file again") from error


class MatlabHdf5(Reader):
    """A MATLAB file of version 7.3, of whose variables ``data.key`` names one; HDF5 has their axes in reverse."""

    takes = frozenset(["key", "layout"])
    unpacks = False

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(b"MATLAB 7.3 MAT-file")

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        with hdf5(path, "MATLAB 7.3") as file:
            matrix = variable(path, file, data)

            def part(axis: int, rows: slice) -> NDArray[Any]:
                return np.asarray(matrix[(..., rows, *(slice(None),) * axis)]).T

            yield from in_rows(path, matrix.shape[::-1], matrix.dtype, part, data)


def variable(path: Path, file: h5py.File, data: Data) -> h5py.Dataset:
    """The matrix that ``data.key`` names, or the only one.

    Raises:
        InputError: If it is no matrix of numbers.
    """
    key = chosen(path, [name for name in file if not name.startswith("#")], data)
    said = file[key].attrs
    kind = bytes(said.get("MATLAB_class", b"double")).decode()
    if "MATLAB_sparse" in said:
        raise InputError(f"{path}: {key} is sparse, which is not read from version 7.3; save it with -v7, or as full({key})")
    if kind not in MATLAB_NUMBERS or not hasattr(file[key], "dtype"):
        kind = "struct" if kind in MATLAB_NUMBERS else kind
        raise InputError(f"{path}: {key} holds {kind}, not numbers; save a matrix of numbers, and name it in data.key")
    if "MATLAB_empty" in said:
        raise InputError(f"{path}: {key} is empty; name another one in data.key")
    return file[key]
