"""A record of a fit: a row for each epoch."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from vae.errors import DivergenceError
from vae.training.diagnosis import Diagnosis


class History(Callback):
    """Records an epoch in a row: epoch, {train,valid}_{bound,elbo,reconstruction,kl,loss}, what else is logged, learning_rate.

    Beside the objective's quantities these are train_gradient_norm and valid_active_units (train_active_units without
    validation).

    Args:
        diagnosis: That of the same fit.

    Attributes:
        rows: The epochs so far, on every process.
    """

    def __init__(self, diagnosis: Diagnosis) -> None:
        self._diagnosis = diagnosis
        self.rows: list[dict[str, float]] = []

    @property
    def latents(self) -> list[dict[str, float]]:
        """How each latent dimension was used, a row per epoch; see `vae.training.diagnosis.Diagnosis`."""
        return self._diagnosis.rows

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = epoch_row(trainer)
        self.rows.append(row)
        bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
        if bad:
            raise DivergenceError(
                f"training diverged in epoch {row['epoch']}: {', '.join(bad)}. "
                "Standardise the data, lower learning_rate, set gradient_clip_norm, or look for extreme values"
            )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


def epoch_row(trainer: pl.Trainer) -> dict[str, float]:
    """A row of the history for the epoch that ends."""
    metrics = trainer.callback_metrics
    values = {name.replace("/", "_"): metrics[name].item() for name in sorted(metrics)}
    return {"epoch": trainer.current_epoch, **values, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
