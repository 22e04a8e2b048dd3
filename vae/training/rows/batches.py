"""Mini-batches of tensors in memory, by indexing: no workers, no per-example collation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from vae.distributions.noise import generator


class Batch(NamedTuple):
    """This process's rows of a batch, and the number of rows of the batch over all processes."""

    rows: Tensor
    size: int


class Batches:
    """Batches of the rows of ``y``, in an order that is a pure function of (seed, epoch).

    Lightning calls `set_epoch` through `sampler` before each epoch. With more than one process each takes its share of
    every batch, so the batch size is the global one and each row is seen by exactly one process.

    Args:
        y: Rows, shape (N, ...).
        batch_size: Rows per batch over all processes; the last batch may be smaller.
        seed: Shuffle by this seed; None keeps the order of the rows.
        rank: Number of this process.
        processes: How many there are.
    """

    batch_sampler = None  # Lightning asks for both where there is a sampler

    def __init__(self, y: Tensor, batch_size: int, seed: int | None = None, *, rank: int = 0, processes: int = 1) -> None:
        self.y, self.batch_size, self.seed = y, batch_size, seed
        self.rank, self.processes = rank, processes
        self.epoch = 0

    @property
    def sampler(self) -> Batches:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.arange(len(self.y))
        if self.seed is not None:
            order = torch.randperm(len(self.y), generator=generator(self.seed, "order", self.epoch))
        for rows in order.to(self.y.device).split(self.batch_size):
            yield Batch(self.y.index_select(0, rows[self.rank :: self.processes]), len(rows))


class Stretch:
    """Batches that follow one another, read as they are asked for.

    Args:
        batches: The epoch's, from the first of the stretch on.
        first: Its number in the epoch.
        count: Batches in the stretch.
        steps: Batches in the epoch.
    """

    def __init__(self, batches: Iterator[Batch], first: int, count: int, steps: int) -> None:
        self._batches, self.first, self.steps = islice(batches, count), first, steps

    def __iter__(self) -> Iterator[Batch]:
        return self._batches


class Stretches:
    """An epoch in stretches of batches, which Lightning takes for batches.

    Args:
        batches: The epoch's batches.
        length: Batches in a stretch; the last may have fewer.
    """

    batch_sampler = None

    def __init__(self, batches: Batches, length: int) -> None:
        self.batches, self.length = batches, length

    @property
    def sampler(self) -> Batches:
        """Where Lightning looks for `set_epoch`."""
        return self.batches

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.length)

    def __iter__(self) -> Iterator[Stretch]:
        batches, steps = iter(self.batches), len(self.batches)
        for first in range(0, steps, self.length):
            yield Stretch(batches, first, min(self.length, steps - first), steps)
