"""How long an epoch of a training takes, by some epochs of fewer steps."""

from __future__ import annotations

import math
import time

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from pipeline.foretelling.excerpt import Excerpt
from pipeline.model.building import hidden_share, in_words_of_params
from pipeline.params.train import TrainParams
from pipeline.tables.schema import PROBABILITIES
from vae import VAE
from vae.training.rows.data import STRETCH

SECONDS = 0.4  # that epochs are watched for, and that a longer one should take
EPOCHS = 200  # that are watched at most


class Epochs(Callback):
    """Watches some epochs.

    Attributes:
        ends: When they ended, and the first began, in seconds.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(time.perf_counter())

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) > 2 and self.ends[-1] - self.ends[0] > SECONDS:
            trainer.should_stop = True

    @property
    def seconds(self) -> float:
        """Of an epoch: the shortest but the first, in which things are done once; others wait for a core, where it is busy."""
        return float(np.diff(self.ends)[1:].min())


def epoch_seconds(vae: VAE, params: TrainParams, excerpt: Excerpt) -> float:
    """Seconds of an epoch, of a model that is trained a little for that."""
    rows, binarize = excerpt.rows, PROBABILITIES in excerpt.arrays
    steps = math.ceil(rows["train"] / params.train.batch_size)
    settings = params.train.model_dump(exclude={"objective"}) | {"binarize": binarize, "seed": params.seed}
    settings |= {"max_epochs": EPOCHS, "patience": None, "devices": 1, "threads": params.threads, "progress": False}

    def epoch(some: int) -> float:
        epochs = Epochs()
        y = excerpt.repeated(PROBABILITIES if binarize else "train", math.ceil(rows["train"] * some / steps))
        valid = excerpt.repeated("valid", math.ceil(rows["valid"] * some / steps))
        with in_words_of_params():
            vae.fit(y, validation=valid, callbacks=[epochs], **settings | {"hide": hidden_share(params, excerpt.schema)})
        return epochs.seconds

    some = max(1, min(steps, STRETCH, round(SECONDS / epoch(1))))
    return epoch(some) * steps / some
