"""Means of what an objective returns, over the rows of an epoch."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae.objectives import Values

OF_RAW_DATA = {"bound": 1, "elbo": 1, "reconstruction": 1, "kl": 0, "loss": -1}  # how often log |dy/dx| is to be added
QUANTITIES = tuple(OF_RAW_DATA)
TOGETHER = 64  # batches that are summed at once, as a sum of few numbers takes as long


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
