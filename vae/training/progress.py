"""A progress bar over epochs."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from vae.bar import progress_bar


class EpochProgress(Callback):
    """Epochs done, time left, and the validation bound with its best value so far (training's, without validation)."""

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
        name = "valid/bound" if "valid/bound" in trainer.callback_metrics else "train/bound"
        bound = trainer.callback_metrics[name].item()
        self._best = max(self._best, bound)
        self._bar.update(self._task, advance=1, note=f"{name} {bound:.2f}, best {self._best:.2f}")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._bar.stop()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._bar.stop()
