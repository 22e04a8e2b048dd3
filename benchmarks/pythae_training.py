"""Pythae's trainer, for the networks and the rows of the yardstick."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import LATENT, PIXELS
from benchmarks.loops import feedforward
from benchmarks.peers import pythae_model

WIDTHS = (200, 200)


class PythaeTraining:
    """A VAE of pythae with its `BaseTrainer`, epoch by epoch as its `train` goes through them.

    Args:
        y: Training rows (N, D).
        validation: Rows that its trainer evaluates after each epoch.
        batch_size: Rows per step.
        folder: Where its trainer may write.
        seed: Of its trainer.
    """

    def __init__(self, y: Tensor, validation: Tensor, batch_size: int, folder: Path, seed: int = 0) -> None:
        logging.disable(logging.INFO)
        trainers, datasets = import_module("pythae.trainers"), import_module("pythae.data.datasets")
        torch.manual_seed(seed)
        self.encoder, self.decoder = feedforward(PIXELS, *WIDTHS, 2 * LATENT), feedforward(LATENT, *WIDTHS, PIXELS)
        config = trainers.BaseTrainerConfig(
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=1024,
            num_epochs=1,
            learning_rate=1e-3,
            seed=seed,
            no_cuda=True,
        )
        rows = [datasets.BaseDataset(some, torch.zeros(len(some))) for some in (y, validation)]
        self.trainer = trainers.BaseTrainer(pythae_model(self.encoder, self.decoder, PIXELS, LATENT), *rows, config)
        self.trainer.prepare_training()
        self.epochs = 0

    def epoch(self, pause: int | None = None) -> Iterator[None]:
        """A pass over the training rows, with a pause after each so many steps, and the evaluation after it."""
        self.epochs += 1
        loader, trainer = self.trainer.train_loader, self.trainer
        batches, length = iter(loader), pause or len(loader)
        for first in range(0, len(loader), length):
            trainer.train_loader = Some(batches, min(length, len(loader) - first), loader.dataset)
            trainer.train_step(self.epochs)
            yield
        trainer.train_loader = loader
        trainer.eval_step(self.epochs)


class Some:
    """The next batches of a loader, for a trainer that iterates over all that it is given."""

    def __init__(self, batches: Iterator[Any], count: int, dataset: Any) -> None:
        self._batches, self._count, self.dataset = batches, count, dataset

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return islice(self._batches, self._count)
