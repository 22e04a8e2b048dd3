"""Speed of training beside a loop written by hand, the matrix products alone, and pythae's trainer.

    python benchmarks/training.py [--quick] [--json FILE] [--mnist FOLDER] [--topics speed ablation ...]

The model is 784-200-200-50 and back, binary pixels, Adam, float32, two threads. ``speed``: the stage `train` as `dvc repro`
runs it, with validation, diagnostics, the saved state, the record and the live MLflow view, on 60,000 rows; after each 64 of
its steps the same process takes 64 of the loop, of the products and of pythae, so that a slow second slows all of them, and
the median over epochs of the ratios is taken. ``steps``: what a step's time goes into, without Lightning. ``ablation``: steps
with and without each of the fast paths. ``target``: seconds to a validation ELBO of -100 nats on MNIST, whose IDX files are in
FOLDER. ``variants``: bfloat16 and torch.compile beside the default. ``cost``: how the time of an epoch grows.
Names that end in ``_ratio`` compare with a peer: above 1 is better than the peer.

About half an hour on two cores; ``--quick`` gives a rough answer, of each topic within a minute or two. Pythae is optional:
see CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import numpy as np

from benchmarks import training_ablation, training_cost, training_steps, training_target, training_variants
from benchmarks.peers import pythae_installed
from benchmarks.report import Report, options
from benchmarks.training_stage import Case, seconds_of_epochs

TOPICS = ("speed", "ablation", "steps", "target", "variants", "cost")
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
        epochs = seconds_of_epochs(case, with_pythae=case.samples is None and pythae_installed())
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


def _ablation(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    yield from training_ablation.measure(report, quick=arguments.quick)


MEASURES = {"speed": _speed, "ablation": _ablation, "steps": _steps, "target": _target, "variants": _variants, "cost": _cost}


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--topics", nargs="+", choices=TOPICS, default=TOPICS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
