"""Mini-batches of rows on disk that do not fit into memory: read in shuffled pools of shuffled chunks.

A chunk is some neighbouring rows, read at once; a pool is as many chunks, drawn at random, as are held in memory; a batch is
drawn at random from a pool. The next pool is read while the model trains on this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from vae.distributions.noise import generator
from vae.model.rows import native
from vae.training.rows.batches import Batch, Batches

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
        for number, read in enumerate(_ahead(self._pools(), self._read)):
            pool, order = torch.from_numpy(read).to(self.like), torch.arange(len(read))
            if self.seed is not None:
                order = torch.randperm(len(read), generator=generator(self.seed, "pool", self.epoch, number))
            first, following = order.to(pool.device).tensor_split([self.batch_size - len(left)])
            left = torch.cat([left, pool[first]])
            for rows in following.split(self.batch_size) if len(following) else ():
                yield self._part(left)
                left = pool[rows]
        if len(left):
            yield self._part(left)

    def _part(self, rows: Tensor) -> Batch:
        return Batch(rows[self.rank :: self.processes], len(rows))

    def _pools(self) -> Iterator[list[int]]:
        """The first rows of the chunks of each pool of the epoch."""
        chunks = math.ceil(len(self.mapped) / CHUNK)
        order = torch.arange(chunks)
        if self.seed is not None:
            order = torch.randperm(chunks, generator=generator(self.seed, "chunks", self.epoch))
        for pool in order.split(max(1, POOL // (CHUNK * self.mapped[0].nbytes))):
            yield (pool * CHUNK).tolist()

    def _read(self, firsts: list[int]) -> Mapped:
        return native(np.concatenate([self.mapped[first : first + CHUNK] for first in firsts]))


def _ahead(pools: Iterable[list[int]], read: Callable[[list[int]], Mapped]) -> Iterator[Mapped]:
    """Read the pools, each while the caller is busy with the one before.

    The thread must not call torch: its OpenMP threads would be a second team beside those that train, more threads than there
    are cores, whose waiting then sleeps: training steps took 3.5 times as long.
    """
    with ThreadPoolExecutor(1) as executor:
        waiting = None
        for pool in pools:
            following = executor.submit(read, pool)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
