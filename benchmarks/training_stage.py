"""Seconds of the stage `train` as `dvc repro` runs it, in turns with its peers."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workspace import change, prepared, run

TIMED = """
import json, sys, tempfile, time
from pathlib import Path

import torch

from benchmarks.loops import Loop, Products
from benchmarks.pythae_training import PythaeTraining
from pipeline.tables.schema import load_split
from pipeline.stages import train
from vae import VAE
from vae.training.rows.data import STRETCH

batch_size, samples, with_pythae = json.loads(sys.argv[1])
rows, held_out = (torch.from_numpy(load_split(split)).float() for split in ("train", "valid"))
others = {"loop": Loop(rows, batch_size, samples), "products": Products(len(rows), batch_size, samples)}
if with_pythae:
    others["pythae"] = PythaeTraining(rows, held_out, batch_size, Path(tempfile.mkdtemp()))
epochs = []

def turn(*, rest):
    for name, going in running.items():
        begin = time.perf_counter()
        for _ in going:
            if not rest:
                break
        epochs[-1][name] += time.perf_counter() - begin

def end():
    if epochs:
        epochs[-1]["ours"] = time.perf_counter() - begun - sum(epochs[-1].values())

def before_an_epoch(self):
    global begun, running
    end()
    epochs.append(dict.fromkeys(others, 0.0))
    running = {name: other.epoch(STRETCH) for name, other in others.items()}
    begun = time.perf_counter()

def step(self, stretch, batch_idx):
    turn(rest=False)
    own_step(self, stretch, batch_idx)

own_step = VAE.training_step
VAE.on_train_epoch_start, VAE.training_step = before_an_epoch, step
VAE.on_validation_epoch_start, VAE.on_train_end = lambda self: turn(rest=True), lambda self: end()
train.main()
print(json.dumps(epochs[1:]))
"""


@dataclass(frozen=True)
class Case:
    """A setting of the training: rows of the table, batch, K of IWAE or the ELBO, and epochs that are timed."""

    rows: int
    batch_size: int
    samples: int | None
    epochs: int

    @property
    def name(self) -> str:
        """As in the JSON file."""
        return f"batch{self.batch_size}" + (f"_iwae{self.samples}" if self.samples else "")

    @property
    def objective(self) -> dict[str, Any]:
        """``train.objective``."""
        return {"name": "iwae", "samples": self.samples} if self.samples else {"name": "elbo", "kl": "closed_form"}


def seconds_of_epochs(case: Case, *, with_pythae: bool) -> list[dict[str, float]]:
    """Seconds of each epoch but the first, ours and the peers'."""
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        folder = prepared(Path(name), case.rows, {"batch_size": case.batch_size, "max_epochs": case.epochs + 1})
        change(folder, objective=case.objective)
        output = run(folder, TIMED, json.dumps([case.batch_size, case.samples, with_pythae]), tracking=True)
    epochs: list[dict[str, float]] = json.loads(output.splitlines()[-1])
    return epochs
