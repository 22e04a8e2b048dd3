"""Arrays of the splits, written row by row as ``np.save`` would write them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.reading.columns.program import Piece
from pipeline.tables.schema import GROUPS, PROBABILITIES, SPLITS


class Writer:
    """Writes {train,valid,test}.npy and {train,valid,test}_index.npy, and the digests of rows and of their groups beside.

    Attributes:
        digests: For each split a file, without a header, with a digest of each row.
        by: Likewise with a digest of its group or stratum.

    Args:
        folder: Where the arrays go.
        beside: Where the digests go.
        rows: The number of rows of each split.
        width: The number of columns.
        probabilities: Whether training values come with that of a one.
    """

    def __init__(self, folder: Path, beside: Path, rows: Mapping[str, int], width: int, *, probabilities: bool) -> None:
        self._stack = ExitStack()
        self.digests, self.by = ({split: beside / f"{split}.{what}" for split in SPLITS} for what in ("digests", "by"))
        self._files = {
            split: (
                self._array(folder / f"{split}.npy", np.float32, (rows[split], width)),
                self._array(folder / f"{split}_index.npy", np.int64, (rows[split],)),
                self._stack.enter_context(self.digests[split].open("wb")),
                self._stack.enter_context(self.by[split].open("wb")),
            )
            for split in SPLITS
        }
        shape = (rows["train"], width)
        self._probabilities = self._array(folder / PROBABILITIES, np.float32, shape) if probabilities else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def write(self, piece: Piece) -> None:
        """Add the rows of a block to their splits."""
        for part, split in enumerate(SPLITS):
            chosen = piece.labels == part
            rows, numbers, digests, by = self._files[split]
            rows.write(piece.y[chosen].data)
            numbers.write(piece.rows[chosen].data)
            digests.write(piece.digests[chosen].data)
            by.write(piece.by[chosen].data)
        if self._probabilities is not None and piece.probabilities is not None:
            self._probabilities.write(piece.probabilities[piece.labels == 0].data)

    def _array(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> BinaryIO:
        file = self._stack.enter_context(path.open("wb"))
        np.lib.format.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
        return file


class Grouping(NamedTuple):
    """The groups of a table.

    Attributes:
        sizes: How many rows each has.
        divided: How many have rows in more than one split.
    """

    sizes: NDArray[np.int64]
    divided: int


def write_groups(folder: Path, by: Mapping[str, Path], *, single: bool) -> Grouping:
    """Write {train,valid,test}_groups.npy: a split's groups have the numbers from 0 on, in the order of their first rows.

    Args:
        folder: Where the arrays go.
        by: For each split a file with a digest of each row's group.
        single: Whether to write them even if each group is a single row.
    """
    groups, counts = list[NDArray[np.uint64]](), list[NDArray[np.int64]]()
    for split, path in by.items():
        digests = np.fromfile(path, np.uint64)
        known, first, places, count = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
        numbers = np.empty(len(known), dtype=np.int32)
        numbers[first.argsort()] = np.arange(len(known))
        np.save(folder / GROUPS.format(split), numbers[places])
        groups.append(known)
        counts.append(count)
    _, places = np.unique(np.concatenate(groups), return_inverse=True)
    sizes = np.bincount(places, weights=np.concatenate(counts)).astype(np.int64)
    if not single and sizes.max() == 1:
        for split in by:
            (folder / GROUPS.format(split)).unlink()
    return Grouping(sizes, int((np.bincount(places) > 1).sum()))
