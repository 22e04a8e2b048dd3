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
from pipeline.reading.formats.reader import Reader, batch_rows, check_names, check_numbers, check_size, chosen

if TYPE_CHECKING:
    import h5py

ReadRows = Callable[[int, int], NDArray[Any]]  # the values of the rows from one to another


class AnnData(Reader):
    """``X``, or the layer that ``data.key`` names, with the columns of ``obs`` that ``data.split`` names.

    https://anndata.readthedocs.io/en/latest/fileformat-prose.html
    """

    suffix = ".parquet"

    @override
    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(b"\x89HDF\r\n\x1a\n")

    @override
    @classmethod
    def batches(cls, path: Path, data: Data) -> Iterator[pd.DataFrame]:
        try:
            import h5py
        except ImportError as error:
            raise InputError(f"{path}: AnnData files need h5py; pip install h5py==3.16.0") from error
        try:
            with h5py.File(path) as file:
                yield from _batches(path, file, data)
        except InputError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise InputError(f"{path} is not a readable AnnData file: {error}; get the file again") from error


def _batches(path: Path, file: h5py.File, data: Data) -> Iterator[pd.DataFrame]:
    if "encoding-type" not in file.attrs or "var" not in file or "_index" not in file["var"].attrs:
        raise InputError(f"{path} is HDF5, but not AnnData of version 0.8 or later; write it with such a one, or as Parquet")
    names = _texts(file["var"][file["var"].attrs["_index"]])
    check_names(path, names, ", as adata.var_names_make_unique() gives it")
    keys = [key for key in ("X", *(f"layers/{name}" for name in file.get("layers", ()))) if key in file]
    matrix = file["X" if data.key is None and "X" in keys else chosen(path, keys, data)]
    rows, read = _rows(path, matrix, len(names))
    splitting = [name for _, name in data.split or () if name is not None and name not in names and name in file["obs"]]
    obs = pd.DataFrame({name: _column(path, file["obs"][name]) for name in splitting}, index=range(rows))
    size = batch_rows(len(names))
    for first in range(0, rows, size):
        last = min(first + size, rows)
        values = pd.DataFrame(read(first, last), columns=names)
        yield pd.concat([values, obs.iloc[first:last].reset_index(drop=True)], axis=1)


def _rows(path: Path, matrix: Any, columns: int) -> tuple[int, ReadRows]:
    """How many rows there are, and what reads some of them."""
    from scipy.sparse import csc_array, csr_array

    kind = matrix.attrs.get("encoding-type")
    values = matrix["data"] if kind in ("csr_matrix", "csc_matrix") else matrix
    check_numbers(path, values.dtype)
    if kind == "csr_matrix":
        starts = matrix["indptr"][:]

        def read(first: int, last: int) -> NDArray[Any]:
            part = slice(starts[first], starts[last])
            parts = (values[part], matrix["indices"][part], starts[first : last + 1] - starts[first])
            return cast(NDArray[Any], csr_array(parts, shape=(last - first, columns)).toarray())

        return len(starts) - 1, read
    if kind == "csc_matrix":
        check_size(path, 2 * (values.nbytes + matrix["indices"].nbytes))
        rows = int(matrix.attrs["shape"][0])
        held = csc_array((values[:], matrix["indices"][:], matrix["indptr"][:]), shape=(rows, columns)).tocsr()
        return rows, lambda first, last: cast(NDArray[Any], held[first:last].toarray())
    return len(values), lambda first, last: cast(NDArray[Any], values[first:last])


def _column(path: Path, column: Any) -> Any:
    """A column of ``obs``: an array, or codes with their categories."""
    kind = column.attrs.get("encoding-type")
    if kind == "categorical":
        codes = column["codes"][:]
        return pd.Categorical.from_codes(codes, _column(path, column["categories"])).astype(object)
    if kind == "string-array":
        return _texts(column)
    if kind == "array":
        return np.asarray(column[:])
    raise InputError(f"{path}: {column.name[1:]} is of the kind {kind}; make it a column of texts, categories or numbers")


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values.asstr()[:]]
