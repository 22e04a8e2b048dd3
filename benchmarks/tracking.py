"""What saving the state and showing the training in MLflow add to its time, on data of MNIST's size.

    python benchmarks/tracking.py [--epochs 40] [--quick] [--json FILE]

The stage `train` runs as `dvc repro` runs it: 60,000 rows of 784 binary columns, 784-200-200-50 and back, batches of 100, two
threads. A shared machine is by a tenth faster or slower from one minute to the next, so one and the same run is measured with
and without: every other epoch is saved and shown, and medians of the two kinds of epochs are compared. What is done once in a
training, before the first epoch and after the last, is the difference of short runs with both and with neither, medians of
three; the very first run also makes the database, which is done once in a project.
About six minutes on two cores; ``--quick`` gives a rough answer within one, from a fifth of the rows, as what saving and
showing an epoch costs does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import numpy as np

from benchmarks.report import Report, options
from benchmarks.workspace import change, prepared, run

ROWS, LENGTHS = 60_000, (20, 100)
TIMED = """
import json, sys, time
from pipeline.experiment import saved
from pipeline.stages import train
from pipeline.tracking import view as tracking
from vae import VAE

with_both, marks = sys.argv[1], []
log = tracking.View.log
is_on = lambda: with_both == "always" or (with_both == "every other epoch" and len(marks) % 2 == 0)
VAE.on_train_epoch_start = lambda self: marks.append(time.perf_counter())
saved.Saved.due = lambda self: is_on()
if with_both == "never":  # the state is saved after the last epoch in any case
    saved.Saved.save, saved.Saved.load = lambda *_: None, lambda *_: None
tracking.View.log = lambda self, row: log(self, row) if is_on() else None
start = time.perf_counter()
train.main()
print(json.dumps([start, *marks, time.perf_counter()]))
"""


def main() -> int:
    """Print the table."""
    arguments = _arguments()
    rows, epochs, seeds = (ROWS // 5, 8, (1,)) if arguments.quick else (ROWS, arguments.epochs, (1, 2, 3))
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        folder = prepared(Path(name), rows, {"batch_size": 100, "max_epochs": 2})
        first = _around(_marks(folder, 2, "always", 0))
        with_both, alone = (
            np.median([_around(_marks(folder, 2, case, seed)) for seed in seeds]) for case in ("always", "never")
        )
        seconds = np.diff(_marks(folder, epochs, "every other epoch", 4)[1:-1])
    without, both = np.median(seconds[0::2]), np.median(seconds[1::2])
    added, longer = with_both - alone, ROWS / rows
    report = Report()
    lines = [
        ["an epoch without", f"{without:.3f}", ""],
        ["an epoch that is saved and shown", f"{both:.3f}", _percent(both / without - 1)],
        ["once in a training: loading MLflow, the end of the run", f"{added:.1f}", ""],
        *([] if arguments.quick else [["once in a project: making the database", f"{first - with_both:.1f}", ""]]),
        *(
            [f"both, of {n} epochs of {ROWS:,} rows", "", _percent((n * (both - without) + added) / (n * without * longer))]
            for n in LENGTHS
        ),
    ]
    report.table(f"Training on {rows:,} x 784, medians of {epochs // 2} epochs each", ["", "seconds", "more"], lines)
    report.add("epoch_seconds", without)
    report.add("epoch_saved_and_shown_seconds", both)
    report.add("once_seconds", added)
    report.add("training_alone_ratio", without * longer / (without * longer + both - without + added / LENGTHS[-1]))
    if arguments.json:
        report.write(arguments.json)
    return 0


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _around(marks: Sequence[float]) -> float:
    """Seconds before the first epoch; those after the last are in it, as epochs are nearly alike."""
    start, first, second, end = marks
    return (first - start) + (end - second) - (second - first)


def _marks(folder: Path, epochs: int, with_both: str, seed: int) -> list[float]:
    """When training began, each of its epochs began, and it ended. Each seed is another experiment."""
    for left in (".evidence/saved", "models", "results/train"):
        shutil.rmtree(folder / left, ignore_errors=True)
    change(folder, seed, max_epochs=epochs)
    before = _points(folder)
    output = run(folder, TIMED, with_both, tracking=with_both != "never")
    assert (_points(folder) > before) == (with_both != "never"), "the run is shown if it is asked for"
    assert bool(list(folder.glob(".evidence/saved/train-*/*.state"))) == (with_both != "never"), "so is the state saved"
    marks: list[float] = json.loads(output.splitlines()[-1])
    return marks


def _points(folder: Path) -> int:
    """How many values MLflow shows."""
    if not (folder / "mlflow.db").exists():
        return 0
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return int(database.execute("select count(*) from metrics").fetchone()[0])


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
