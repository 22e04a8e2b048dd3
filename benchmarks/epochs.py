"""Seconds of the epochs of a fit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from typing_extensions import override

from vae import VAE

Key = TypeVar("Key")


class Marks(pl.Callback):
    """When each epoch ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.times.append(time.perf_counter())


def seconds(vae: VAE, y: Tensor, epochs: int = 3, **settings: Any) -> list[float]:
    """Of the epochs after the first."""
    marks = Marks()
    settings |= {"accelerator": "cpu", "progress": False, "threads": torch.get_num_threads()}
    vae.fit(y, max_epochs=epochs + 1, callbacks=[marks], **settings)
    return [end - begin for begin, end in zip(marks.times, marks.times[1:], strict=False)]


def medians(cases: Mapping[Key, Callable[[], list[float]]], rounds: int) -> dict[Key, float]:
    """Of the epochs of some rounds, in each of which every case is fitted once."""
    found: dict[Key, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            found[name] += case()
    return {name: statistics.median(times) for name, times in found.items()}
