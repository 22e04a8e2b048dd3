"""What a fit tells while it lasts: its epochs to MLflow, and its state to a later start."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from pipeline.base.bar import progress_bar
from pipeline.base.environment import is_first_process
from pipeline.experiment.saved import Saved
from pipeline.tracking.view import Silent, View
from vae.training.diagnosis import latest_row
from vae.training.epochs import epoch_row


class Live(Callback):
    """Shows each epoch as it ends, and how many of the training rows it took through in a second.

    Args:
        view: The MLflow run.
        rows: Training rows.
    """

    def __init__(self, view: View | Silent, rows: int) -> None:
        self._view, self._rows = view, rows
        self._began = 0.0

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:  # the start of an epoch is not called where a fit goes on
            self._began = time.perf_counter()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rate = self._rows / (time.perf_counter() - self._began)
        self._view.log({"epoch": trainer.current_epoch, "train_examples_per_second": rate})

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._view.log(epoch_row(trainer))
        self._view.log(latest_row(trainer))


class EpochProgress(Callback):
    """Shows how many epochs are done, the time left, and the validation bound with its best value so far."""

    def __init__(self) -> None:
        self._bar = progress_bar()
        self._best = float("-inf")

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.disable = not trainer.is_global_zero
        self._task = self._bar.add_task("training", total=trainer.max_epochs, note="")
        self._bar.start()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        bound = trainer.callback_metrics["valid/bound"].item()
        self._best = max(self._best, bound)
        self._bar.update(self._task, advance=1, note=f"valid/bound {bound:.2f}, best {self._best:.2f}")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._bar.stop()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._bar.stop()


class SavedStates:
    """The states of a training that a stage saves, from which a later start goes on; see `vae.training.resume.Snapshots`."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved
        self.due = saved.due

    def load(self, check: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
        """The newest state that is intact and this model's."""
        state = self._saved.load("training", check)
        if state is not None and is_first_process():
            print(f"going on after epoch {state['epoch']} of an earlier start", flush=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state."""
        self._saved.save("training", state)
