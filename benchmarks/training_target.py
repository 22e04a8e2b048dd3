"""Seconds of training until the validation ELBO reaches -100 nats on MNIST, beside pythae's trainer.

Both have the same networks, batches of 100, Adam at 1e-3, one static binarisation of the pixels, and the same 10,000 images
held out, whose ELBO is by one and the same noise in all epochs. The time of pythae's trainer is that of its epochs with the
evaluation that it makes; what this script then computes is not counted.
"""

from __future__ import annotations

import gzip
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from typing_extensions import override

from benchmarks.harness import IDX_HEADER, PIXELS, model
from benchmarks.peers import pythae_installed
from benchmarks.pythae_training import PythaeTraining
from benchmarks.report import Report
from vae.objectives import ELBO

TARGET, QUICK_TARGET = -100.0, -130.0  # nats
HELD_OUT, MOST_EPOCHS = 10_000, 100


def measure(report: Report, folder: Path, *, quick: bool) -> Iterator[str]:
    """A line for each trainer."""
    torch.set_num_threads(2)
    rows, target = _binarised(folder), QUICK_TARGET if quick else TARGET
    y, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:]
    trainers: dict[str, Callable[..., float]] = {"ours": _ours} | ({"pythae": _pythae} if pythae_installed() else {})
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for seed in range(1 if quick else 5):
        for name, trainer in trainers.items():
            found[name].append(trainer(y, held_out, target, seed))
    medians = {name: statistics.median(times) for name, times in found.items()}
    for name, value in medians.items():
        report.add(f"seconds_to_target_{name}", value)
    if "pythae" in medians:
        report.add("seconds_to_target_ratio", medians["pythae"] / medians["ours"])
    lines = [[name, f"{value:.1f}", f"{value / medians['ours']:.2f}"] for name, value in medians.items()]
    title = f"Training on MNIST until the validation ELBO is {target:g} nats, median of {len(found['ours'])}"
    report.table(title, ["", "seconds", "over ours"], lines)
    if "pythae" not in medians:
        yield "pythae is not installed"


class Until(pl.Callback):
    """Ends a fit at the target, and says when."""

    def __init__(self, target: float) -> None:
        self.target, self.reached = target, float("nan")

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.callback_metrics["valid/elbo"].item() >= self.target:
            self.reached, trainer.should_stop = time.perf_counter(), True


def _ours(y: Tensor, held_out: Tensor, target: float, seed: int) -> float:
    vae, until, begin = model(PIXELS, objective=ELBO(kl="closed_form"), seed=seed), Until(target), time.perf_counter()
    settings: dict[str, Any] = {
        "batch_size": 100,
        "learning_rate": 1e-3,
        "seed": seed,
        "accelerator": "cpu",
        "threads": torch.get_num_threads(),
        "progress": False,
    }
    vae.fit(y, validation=held_out, max_epochs=MOST_EPOCHS, callbacks=[until], **settings)
    return until.reached - begin


def _pythae(y: Tensor, held_out: Tensor, target: float, seed: int) -> float:
    with tempfile.TemporaryDirectory(prefix="evidence-") as folder:
        training, seconds = PythaeTraining(y, held_out, 100, Path(folder), seed), 0.0
        for _ in count():
            begin = time.perf_counter()
            for _ in training.epoch():
                pass
            seconds += time.perf_counter() - begin
            if training.epochs == MOST_EPOCHS or _elbo(training.encoder, training.decoder, held_out) >= target:
                return seconds
    raise AssertionError


@torch.no_grad()
def _elbo(encoder: nn.Module, decoder: nn.Module, y: Tensor) -> float:
    mean, log_variance = encoder(y).chunk(2, dim=-1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    logits = decoder(mean + (0.5 * log_variance).exp() * noise)
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    return -(binary_cross_entropy_with_logits(logits, y, reduction="sum") + kl).item() / len(y)


def _binarised(folder: Path) -> Tensor:
    """The 60,000 training images, each pixel 1 with probability value / 255."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=IDX_HEADER).reshape(-1, PIXELS)
    grey = torch.from_numpy(pixels.astype(np.float32) / 255)
    return torch.bernoulli(grey, generator=torch.Generator().manual_seed(0))
