"""Speed of training beside a loop written by hand, the matrix products alone, and pythae's trainer.

    python benchmarks/training.py [--quick] [--json FILE] [--mnist FOLDER] [--topics speed steps target variants cost]

The model is 784-200-200-50 and back, binary pixels, Adam, float32, two threads. ``speed``: the stage `train` as `dvc repro`
runs it, with validation, diagnostics, the saved state, the record and the live MLflow view, on 60,000 rows; after each 64 of
its steps the same process takes 64 of the loop, of the products and of pythae, so that a slow second slows all of them, and
the median over epochs of the ratios is taken. ``steps``: what a step's time goes into, without Lightning. ``target``: seconds
to a validation ELBO of -100 nats on MNIST, whose IDX files are in FOLDER. ``variants``: bfloat16 and torch.compile beside the
default. ``cost``: how the time of an epoch grows. Names that end in ``_ratio`` compare with a peer: above 1 is better than
the peer.

About half an hour on two cores; ``--quick`` gives a rough answer, of each topic within a minute or two. Pythae is optional:
see CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import numpy as np

from benchmarks import training_cost, training_steps, training_target, training_variants
from benchmarks.peers import pythae_installed
from benchmarks.report import Report, options
from benchmarks.workspace import change, prepared, run

TOPICS = ("speed", "steps", "target", "variants", "cost")
TIMED = """
import json, sys, tempfile, time
from pathlib import Path

import torch

from benchmarks.loops import Loop, Products
from benchmarks.pythae_training import PythaeTraining
from pipeline.schema import load_split
from pipeline.stages import train
from vae import VAE
from vae.data import STRETCH

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


CASES = (
    Case(60_000, 20, None, 3),
    Case(60_000, 100, None, 5),
    Case(60_000, 512, None, 5),
    Case(12_000, 20, 5, 3),
    Case(12_000, 100, 5, 5),
    Case(12_000, 512, 5, 5),
    Case(6_000, 20, 50, 3),
    Case(6_000, 100, 50, 3),
    Case(6_000, 512, 50, 3),
)
QUICK = (Case(6_000, 20, None, 4), Case(6_000, 100, None, 4), Case(6_000, 512, None, 4), Case(1_200, 100, 50, 3))


def main() -> int:
    """Print the tables."""
    arguments, report = _arguments(), Report()
    for topic in arguments.topics:
        for line in MEASURES[topic](report, arguments):
            report.say(line)
    if arguments.json:
        report.write(arguments.json)
    return 0


def _speed(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    lines = []
    for case in QUICK if arguments.quick else CASES:
        epochs = _epochs(case, with_pythae=case.samples is None and pythae_installed())
        seconds = float(np.median([epoch["ours"] for epoch in epochs]))
        ratios = {peer: float(np.median([epoch[peer] / epoch["ours"] for epoch in epochs])) for peer in epochs[0]}
        for peer in ("loop", "pythae"):
            if peer in ratios:
                report.add(f"{case.name}_{peer}_ratio", ratios[peer])
        report.add(f"{case.name}_times_products", 1 / ratios["products"])
        report.add(f"{case.name}_rows_per_second", case.rows / seconds)
        lines.append(_line(case, seconds, ratios))
    columns = ["", "rows a second", "times the loop", "times pythae", "its time in products", "the loop's"]
    report.table("Training as dvc repro runs it, medians over epochs", columns, lines)
    if not pythae_installed():
        yield "pythae is not installed"


def _line(case: Case, seconds: float, ratios: Mapping[str, float]) -> list[str]:
    of = "ELBO" if case.samples is None else f"IWAE, K = {case.samples}"
    pythae = f"{ratios['pythae']:.2f}" if "pythae" in ratios else ""
    own, loop = 1 / ratios["products"], ratios["loop"] / ratios["products"]
    rate = f"{case.rows / seconds:,.0f}"
    return [f"{of}, batches of {case.batch_size}", rate, f"{ratios['loop']:.2f}", pythae, f"{own:.2f}", f"{loop:.2f}"]


def _epochs(case: Case, *, with_pythae: bool) -> list[dict[str, float]]:
    """Seconds of each epoch but the first, ours and the peers'."""
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        folder = prepared(Path(name), case.rows, {"batch_size": case.batch_size, "max_epochs": case.epochs + 1})
        change(folder, objective=case.objective)
        output = run(folder, TIMED, json.dumps([case.batch_size, case.samples, with_pythae]), tracking=True)
    epochs: list[dict[str, float]] = json.loads(output.splitlines()[-1])
    return epochs


def _target(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.mnist is None:
        yield "the time to a target needs --mnist FOLDER"
        return
    yield from training_target.measure(report, arguments.mnist, quick=arguments.quick)


def _variants(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    yield from training_variants.measure(report, quick=arguments.quick)


def _cost(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    yield from training_cost.measure(report, quick=arguments.quick)


def _steps(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    yield from training_steps.measure(report, quick=arguments.quick)


MEASURES = {"speed": _speed, "steps": _steps, "target": _target, "variants": _variants, "cost": _cost}


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--topics", nargs="+", choices=TOPICS, default=TOPICS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
