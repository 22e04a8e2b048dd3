"""Arrays of the splits, written row by row as ``np.save`` would write them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from pipeline.reading.columns.program import Piece
from pipeline.tables.schema import GROUPS, PROBABILITIES, SPLITS


class Writer:
    """Writes {train,valid,test}.npy and {train,valid,test}_index.npy, and the rows' digests beside.

    Where rows come in groups also {train,valid,test}_groups.npy: a split's groups have the numbers from 0 on, in the order of
    their first rows.

    Args:
        folder: Where the arrays go.
        beside: Where the digests go, in files without a header.
        rows: The number of rows of each split.
        width: The number of columns.
        probabilities: Whether training values come with that of a one.
        grouped: Whether rows come in groups.
    """

    def __init__(
        self, folder: Path, beside: Path, rows: Mapping[str, int], width: int, *, probabilities: bool, grouped: bool
    ) -> None:
        self._stack = ExitStack()
        self.digests = {split: beside / f"{split}.digests" for split in SPLITS}
        self._files = {
            split: (
                self._array(folder / f"{split}.npy", np.float32, (rows[split], width)),
                self._array(folder / f"{split}_index.npy", np.int64, (rows[split],)),
                self._stack.enter_context(self.digests[split].open("wb")),
            )
            for split in SPLITS
        }
        names = SPLITS if grouped else ()
        self._groups = {name: self._array(folder / GROUPS.format(name), np.int32, (rows[name],)) for name in names}
        self._numbers: dict[str, dict[int, int]] = {name: {} for name in names}
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
            rows, numbers, digests = self._files[split]
            rows.write(piece.y[chosen].data)
            numbers.write(piece.rows[chosen].data)
            digests.write(piece.digests[chosen].data)
            if split in self._groups:
                known = self._numbers[split]
                groups, first, place = np.unique(piece.by[chosen], return_index=True, return_inverse=True)
                for k in first.argsort():
                    known.setdefault(int(groups[k]), len(known))
                self._groups[split].write(np.array([known[group] for group in groups.tolist()], dtype=np.int32)[place].data)
        if self._probabilities is not None and piece.probabilities is not None:
            self._probabilities.write(piece.probabilities[piece.labels == 0].data)

    def _array(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> BinaryIO:
        file = self._stack.enter_context(path.open("wb"))
        np.lib.format.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
        return file
