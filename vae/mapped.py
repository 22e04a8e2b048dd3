"""Mini-batches of rows on disk that do not fit into memory: read in shuffled pools of shuffled chunks.

A chunk is some neighbouring rows, read at once; a pool is as many chunks, drawn at random, as are held in memory; a batch is
drawn at random from a pool. The next pool is read while the model trains on this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from vae.batches import Batch, Batches
from vae.noise import generator

CHUNK = 1024  # rows
POOL = 2**28  # bytes of rows in memory; there are two pools, and what becomes of them

Mapped = NDArray[np.floating[Any]]


class Pooled(Batches):
    """Batches as those of `Batches`, of rows that stay on disk; in an order that is a pure function of (seed, epoch).

    Args:
        y: Memory-mapped rows, shape (N, ...).
        batch_size: Rows per batch over all processes; the last batch may be smaller.
        seed: Shuffle by this seed; None keeps the order of the rows.
        like: A tensor whose dtype and device the batches take.
        rank: Number of this process.
        processes: How many there are.
    """

    def __init__(
        self, y: Mapped, batch_size: int, seed: int | None = None, *, like: Tensor, rank: int = 0, processes: int = 1
    ) -> None:
        self.mapped, self.batch_size, self.seed, self.like = y, batch_size, seed, like
        self.rank, self.processes = rank, processes
        self.epoch = 0

    @override
    def __len__(self) -> int:
        return math.ceil(len(self.mapped) / self.batch_size)

    @override
    def __iter__(self) -> Iterator[Batch]:
        left = self.like.new_empty(0, *self.mapped.shape[1:])
        for pool in _ahead(self._pools(), self._read):
            rows = torch.cat([left, pool.to(self.like)])
            whole = len(rows) // self.batch_size * self.batch_size
            for batch in rows[:whole].split(self.batch_size) if whole else ():
                yield self._part(batch)
            left = rows[whole:]
        if len(left):
            yield self._part(left)

    def _part(self, rows: Tensor) -> Batch:
        return Batch(rows if self.processes == 1 else rows[self.rank :: self.processes], len(rows))

    def _pools(self) -> Iterator[tuple[int, list[int]]]:
        """The number of each pool of the epoch, and the first rows of its chunks."""
        chunks = math.ceil(len(self.mapped) / CHUNK)
        order = torch.arange(chunks)
        if self.seed is not None:
            order = torch.randperm(chunks, generator=generator(self.seed, "chunks", self.epoch))
        size = max(1, POOL // (CHUNK * self.mapped[0].nbytes))
        for number, pool in enumerate(order.split(size)):
            yield number, (pool * CHUNK).tolist()

    def _read(self, pool: tuple[int, list[int]]) -> Tensor:
        number, firsts = pool
        rows = torch.from_numpy(np.concatenate([self.mapped[first : first + CHUNK] for first in firsts]))
        if self.seed is None:
            return rows
        return rows[torch.randperm(len(rows), generator=generator(self.seed, "pool", self.epoch, number))]


def _ahead(pools: Iterable[tuple[int, list[int]]], read: Any) -> Iterator[Tensor]:
    """What is read of each pool, one pool ahead of the caller."""
    with ThreadPoolExecutor(1) as executor:
        waiting = None
        for pool in pools:
            following = executor.submit(read, pool)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
