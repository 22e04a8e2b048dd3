"""An exponential moving average of the weights: often better than the last ones, whose steps are noisy."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import override

from vae.training.resume import is_last_epoch


class Average(Callback):
    """An average of the weights, which takes their place while a model is validated and kept.

    After t steps it is decay * (average after t - 1) + (1 - decay) * weights; at first it is the weights that training begins
    with (Polyak and Juditsky 1992; Kingma and Ba 2015, section 7.2).

    Args:
        decay: From 0, no average, to below 1.
    """

    def __init__(self, decay: float) -> None:
        self._step = get_ema_multi_avg_fn(decay)
        self._average: Tensor | None = None

    def begin(self, weights: Tensor) -> None:
        """Follow these weights, which stay in their place: from where they are, or on from the state that was loaded."""
        self._vector = weights
        self._average = (weights.clone() if self._average is None else self._average).to(weights)

    def update(self) -> None:
        """Take in the weights after a step of the optimiser."""
        assert self._average is not None
        with torch.no_grad():
            self._step([self._average], [self._vector], 0)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._exchange()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if any(trainer.num_val_batches) or is_last_epoch(trainer):
            self._exchange()

    def _exchange(self) -> None:
        assert self._average is not None
        kept = self._vector.clone()
        self._vector.copy_(self._average)
        self._average.copy_(kept)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._average = state_dict["average"]
