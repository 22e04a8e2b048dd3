"""The rows of a fit as Lightning wants them."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from vae.training.rows.batches import Batches, Stretches
from vae.training.rows.mapped import Mapped, Pooled

STRETCH = 64  # steps between two calls by Lightning
LARGE_BATCH = 1024  # draws for a validation batch at least, as nothing is stored for a gradient


class TrainingRows(pl.LightningDataModule):
    """Training and validation rows: tensors are held on the device that trains, memory-mapped arrays stay on disk.

    Args:
        y: Training rows, shape (N, D).
        validation: Validation rows, shape (M, D), or None.
        batch_size: Training rows per optimiser step, over all processes.
        seed: Seed of the training order.
        draws: Latents that the objective draws for a row.
    """

    def __init__(
        self, y: Tensor | Mapped, validation: Tensor | Mapped | None, batch_size: int, seed: int, draws: int = 1
    ) -> None:
        super().__init__()
        self.y, self.validation, self.batch_size, self.seed = y, validation, batch_size, seed
        self.validation_batch_size = max(batch_size, LARGE_BATCH // draws)

    def _batches(self, y: Tensor | Mapped, batch_size: int, seed: int | None) -> Batches:
        assert self.trainer is not None
        model, place = self.trainer.lightning_module, (self.trainer.global_rank, self.trainer.world_size)
        like = torch.empty(0, dtype=next(model.parameters()).dtype, device=self.trainer.strategy.root_device)
        if isinstance(y, Tensor):
            return Batches(y.to(like), batch_size, seed, rank=place[0], processes=place[1])
        return Pooled(y, batch_size, seed, like=like, rank=place[0], processes=place[1])

    def train_dataloader(self) -> Stretches:
        """Shuffled training batches, in stretches."""
        return Stretches(self._batches(self.y, self.batch_size, self.seed), STRETCH)

    def val_dataloader(self) -> Batches | list[Batches]:
        """Validation batches in the order of the rows."""
        if self.validation is None:
            return []
        return self._batches(self.validation, self.validation_batch_size, None)
