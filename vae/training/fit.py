"""Fitting: settings, the epoch record, the progress bar and the choice of the best epoch."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping
from torch import Tensor
from typing_extensions import override

from vae.errors import AcceleratorError, DivergenceError
from vae.settings import Training
from vae.training.averaging import Average
from vae.training.diagnosis import Diagnosis
from vae.training.progress import EpochProgress
from vae.training.resume import BestEpoch, Saving, Snapshots
from vae.training.rows.data import Rows
from vae.training.rows.mapped import Mapped

if TYPE_CHECKING:
    from vae.training.vae import VAE


class History(Callback):
    """A row per epoch: epoch, {train,valid}_{bound,elbo,reconstruction,kl,loss}, and what else is logged, learning_rate.

    Beside the objective's quantities these are train_gradient_norm and valid_active_units (train_active_units without
    validation).

    Args:
        diagnosis: Of the same fit.

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


def fit(
    vae: VAE,
    y: Tensor | Mapped,
    validation: Tensor | Mapped | None,
    training: Training,
    callbacks: Sequence[Callback] = (),
    snapshots: Snapshots | None = None,
) -> History:
    """Train ``vae`` in place and leave it with the weights of its best epoch by validation bound (the last, without one).

    Args:
        vae: The model.
        y: Training rows, shape (N, D); a memory-mapped array stays on disk.
        validation: Rows of shape (M, D), or None; likewise.
        training: Settings.
        callbacks: More Lightning callbacks.
        snapshots: Where the state for resuming is kept; a fit that was interrupted goes on from the last, to the same bytes.

    Raises:
        DivergenceError: If a loss is not finite; the weights are then those of that epoch.
        AcceleratorError: If the accelerator, devices or precision are not available.
    """
    diagnosis, best = Diagnosis(y, validation, training), BestEpoch()
    history = History(diagnosis)
    vae.average = Average(training.ema_decay) if training.ema_decay is not None else None
    saving = Saving(snapshots) if snapshots else None
    state = saving.load(vae, best) if saving else None
    if state and state["finished"]:
        return _restored(vae, history, diagnosis, best, state)
    vae.train()
    with _tidy():
        chosen = [diagnosis, history, *callbacks, best, *_optional(training, validation), *filter(None, [vae.average])]
        trainer = _trainer(training, chosen, saving, validates=validation is not None)
        data = Rows(y, validation, training.batch_size, training.seed, vae.objective.draws)
        try:
            trainer.fit(vae, datamodule=data, ckpt_path="state" if state else None, weights_only=True)
        except SystemExit as end:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from end
        finally:
            vae.end()
    return history


def _restored(vae: VAE, history: History, diagnosis: Diagnosis, best: BestEpoch, state: dict[str, Any]) -> History:
    """What a fit that had finished left: the process ended between training and what was to come after."""
    vae.load_state_dict(state["state_dict"])
    for callback in (history, diagnosis, best):
        callback.load_state_dict(state["callbacks"][callback.state_key])
    best.restore(vae)
    vae.eval()
    return history


def _optional(training: Training, validation: Tensor | Mapped | None) -> Iterator[Callback]:
    if validation is not None and training.patience is not None:
        yield EarlyStopping("valid/bound", mode="max", patience=training.patience, check_finite=False)
    if training.progress:
        yield EpochProgress()


def _trainer(training: Training, callbacks: list[Callback], saving: Saving | None, *, validates: bool) -> pl.Trainer:
    try:
        return pl.Trainer(
            max_epochs=training.max_epochs,
            accelerator=training.accelerator,
            devices=training.devices,
            precision=training.precision,
            deterministic=training.deterministic,
            callbacks=[*callbacks, *filter(None, [saving])],
            plugins=saving.bridge if saving else None,
            enable_checkpointing=saving is not None,
            num_sanity_val_steps=0,
            limit_val_batches=None if validates else 0,
            logger=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ImportError, ValueError) as error:
        raise AcceleratorError(
            f"accelerator={training.accelerator!r}, devices={training.devices}, precision={training.precision!r} cannot be "
            f"had on this machine: {error} Set accelerator to 'auto' or 'cpu', or run where there is one."
        ) from error


@contextmanager
def _tidy() -> Iterator[None]:
    """Silence Lightning's announcements and a deprecated call of its own; leave torch's global settings as they were."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    deterministic = torch.are_deterministic_algorithms_enabled()  # which the Trainer changes for the whole process
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
            yield
    finally:
        logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)
