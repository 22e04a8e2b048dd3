"""AnnData files (`.h5ad`): cells in rows, genes in columns. HDF5 as its documentation describes it, read block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from typing_extensions import override

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.formats.hdf5 import hdf5
from pipeline.reading.formats.reader import Reader, batch_rows, check_names, check_numbers, check_size, chosen

if TYPE_CHECKING:
    import h5py

NULLABLE = {"nullable-integer": pd.arrays.IntegerArray, "nullable-boolean": pd.arrays.BooleanArray}
ReadRows = Callable[[int, int], NDArray[Any]]  # the values of the rows from one to another


class AnnData(Reader):
    """``X``, or the layer that ``data.key`` names, with the columns of ``obs`` that ``data.split`` names.

    https://anndata.readthedocs.io/en/latest/fileformat-prose.html
    """

    suffix = ".parquet"
    takes = frozenset(["key"])
    unpacks = False

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(b"\x89HDF\r\n\x1a\n")

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        with hdf5(path, "AnnData") as file:
            if "encoding-type" not in file.attrs or "var" not in file or "_index" not in file["var"].attrs:
                raise InputError(
                    f"{path} is HDF5, but not AnnData of version 0.8 or later; write it with such a one, or as Parquet"
                )
            keys = [key for key in ("X", *(f"layers/{name}" for name in file.get("layers", ())), "raw/X") if key in file]
            key = "X" if data.key is None and "X" in keys else chosen(path, keys, data)
            var = file["raw/var" if key == "raw/X" else "var"]
            names = ["" if name is None else str(name) for name in _column(path, var[var.attrs["_index"]])]
            check_names(path, names, ", as adata.var_names_make_unique() gives it")
            rows, size = cells(file), batch_rows(len(names))
            read = _reads(path, file[key], (rows, len(names)))
            by = [name for _, name in data.split or () if name is not None and name not in names and name in file["obs"]]
            obs = pd.DataFrame({name: _column(path, file["obs"][name]) for name in by}, index=range(rows))
            for first in range(0, rows, size):
                values = pd.DataFrame(read(first, min(first + size, rows)), columns=names)
                yield pd.concat([values, obs.iloc[first : first + size].reset_index(drop=True)], axis=1)


def cells(file: h5py.File) -> int:
    """How many rows there are."""
    index = file["obs"][file["obs"].attrs["_index"]]
    return len(index if hasattr(index, "dtype") else index["values"])


def _reads(path: Path, matrix: Any, shape: tuple[int, int]) -> ReadRows:
    """What reads the rows of a matrix from one to another."""
    kind = matrix.attrs.get("encoding-type")
    is_sparse = kind in ("csr_matrix", "csc_matrix")
    values = matrix["data"] if is_sparse else matrix
    check_numbers(path, values.dtype)
    declared = tuple(int(size) for size in (matrix.attrs["shape"] if is_sparse else matrix.shape))
    if declared != shape:
        raise InputError(
            f"{path}: {matrix.name[1:]} has the shape {declared}, but there are {shape[0]} cells and {shape[1]} genes; write "
            "the file again"
        )
    if kind == "csr_matrix":
        lines = _lines(path, matrix, *shape, "row")
        return lambda first, last: cast(NDArray[Any], lines(first, last).toarray())
    if kind == "csc_matrix":
        check_size(path, 2 * (values.nbytes + matrix["indices"].nbytes))
        held = _lines(path, matrix, *shape[::-1], "column")(0, shape[1]).T.tocsr()
        return lambda first, last: cast(NDArray[Any], held[first:last].toarray())
    return lambda first, last: cast(NDArray[Any], values[first:last])


def _lines(path: Path, matrix: Any, count: int, width: int, what: str) -> Callable[[int, int], Any]:
    """What reads the rows of CSR, or the columns of CSC, from one to another, as rows of a sparse array.

    Raises:
        InputError: Naming the first line whose values are not where they can be: now, or when they are read.
    """
    from scipy.sparse import csr_array

    where, values, indices = f"{path}: {matrix.name[1:]}", matrix["data"], matrix["indices"]
    if matrix["indptr"].dtype.kind not in "iu" or indices.dtype.kind not in "iu" or len(indices) != len(values):
        raise InputError(f"{where} needs a whole number in indices for each of its values; write the file again")
    starts = matrix["indptr"][:].astype(np.int64)
    if len(starts) != count + 1:
        raise InputError(
            f"{where} has {len(starts)} entries in indptr, but {count} {what}s, which need {count + 1}; write the file again, "
            "as CSR and CSC may have been confused"
        )
    odd = (starts[1:] < starts[:-1]) | (starts[1:] > len(values)) | (starts[:-1] < 0)
    for line in [0] if starts[0] else np.flatnonzero(odd)[:1]:
        ends = f"{starts[line]} to {starts[min(line + 1, count)]}"
        raise InputError(f"{where}, {what} {line + 1}: indptr says values {ends} of {len(values)}; write the file again")

    def read(first: int, last: int) -> Any:
        part = slice(starts[first], starts[last])
        places = indices[part]
        for odd in np.flatnonzero((places < 0) | (places >= width))[:1]:
            line = np.searchsorted(starts, starts[first] + odd, side="right")
            raise InputError(
                f"{where}, {what} {line}: has an index {places[odd]}, not from 0 to {width - 1}; write the file again"
            )
        held = values[part].astype(values.dtype.newbyteorder("="))
        return csr_array((held, places, starts[first : last + 1] - starts[first]), shape=(last - first, width))

    return read


def _column(path: Path, column: Any) -> Any:
    """A column of ``obs``, or the names of ``var``: an array, with a mask or not, or codes with their categories."""
    kind = column.attrs.get("encoding-type") or ("string-array" if column.dtype.kind in "OS" else "array")
    if kind == "categorical":
        codes = column["codes"][:]
        return pd.Categorical.from_codes(codes, _column(path, column["categories"])).astype(object)
    if kind == "string-array":
        return column.asstr()[:]
    if kind == "array":
        return np.asarray(column[:])
    if kind == "nullable-string-array":
        return np.where(column["mask"][:], None, _column(path, column["values"]))
    if kind in NULLABLE:
        return NULLABLE[kind](column["values"][:], column["mask"][:])
    raise InputError(f"{path}: {column.name[1:]} is of the kind {kind}; make it a column of texts, categories or numbers")
