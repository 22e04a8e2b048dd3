"""Means over an epoch: of what an objective returns, over its rows, and of the gradient's norm, over its steps."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae.objectives import Values

OF_RAW_DATA = {"bound": 1, "elbo": 1, "reconstruction": 1, "kl": 0, "loss": -1}  # how often log |dy/dx| is to be added
QUANTITIES = tuple(OF_RAW_DATA)
TOGETHER = 64  # batches that are summed at once, as a sum of few numbers takes as long
MEASURED = 32  # steps of an epoch, about, whose gradient is: all would take some percent of the time of small networks


class Totals:
    """Sums of per-example quantities over an epoch, so that a smaller last batch counts by its rows."""

    def __init__(self) -> None:
        self._sums = torch.zeros(len(QUANTITIES) + 1, dtype=torch.float64)
        self._waiting: list[tuple[Tensor, ...]] = []

    def add(self, values: Values, rows: Tensor | None = None) -> None:
        """Add the `QUANTITIES` of a batch, or of those of its rows that count."""
        parts = [values.reconstruction, values.kl, values.loss, *([] if values.tighter is None else [values.tighter])]
        detached = [part.detach() for part in parts]
        self._waiting.append(tuple(detached if rows is None else (part[rows] for part in detached)))
        if len(self._waiting) == TOGETHER:
            self._sum()

    def means(self, strategy: pl.strategies.Strategy) -> Tensor:
        """Means of the `QUANTITIES` over the rows of all processes; starts anew."""
        self._sum()
        sums = strategy.reduce(self._sums.to(strategy.root_device), reduce_op="sum")
        self._sums = torch.zeros_like(self._sums)
        return sums[:-1] / sums[-1]

    def _sum(self) -> None:
        if self._waiting:
            columns = [torch.cat(parts) for parts in zip(*self._waiting, strict=True)]
            reconstruction, kl, loss, *tighter = (column.sum(dtype=torch.float64) for column in columns)
            elbo = reconstruction - kl
            bound = tighter[0] if tighter else elbo
            sums = torch.stack([bound, elbo, reconstruction, kl, loss, loss.new_tensor(len(columns[0]))])
            self._sums = self._sums.to(sums.device) + sums
            self._waiting = []


class GradientNorms:
    """The mean over steps of an epoch of the norm of the mean loss's gradient, before clipping."""

    def __init__(self) -> None:
        self._sum, self._count = torch.zeros(()), torch.zeros(())

    @staticmethod
    def is_due(step: int, steps: int) -> bool:
        """Whether this step of so many in the epoch is one to measure; they are evenly spaced, and the first is one."""
        return step % max(1, steps // MEASURED) == 0

    def note_gradient(self, norm: Tensor) -> None:
        """Add a step's norm, a scalar, without waiting for the device.

        One that is not finite does not count: with 16-bit floats such a step is left out of training too.
        """
        finite = norm.isfinite()
        self._sum = self._sum.to(norm) + torch.where(finite, norm, 0)
        self._count = self._count.to(norm) + finite

    def mean(self) -> Tensor:
        """The mean over the steps that were noted, a scalar, 0 if there are none; starts anew."""
        mean = self._sum / self._count.clamp(min=1)
        self._sum, self._count = torch.zeros_like(self._sum), torch.zeros_like(self._count)
        return mean
