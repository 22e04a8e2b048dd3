"""HDF5, of which other formats are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import InputError

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
