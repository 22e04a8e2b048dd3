"""What saving the state and showing the training in MLflow add to its time, on data of MNIST's size.

    python benchmarks/tracking.py [--epochs 20] [--repeats 3] [--cases neither both] [--quick] [--json FILE]

The stage `train` runs as `dvc repro` runs it, each time in a fresh process: 60,000 rows of 784 binary columns,
784-200-200-50 and back, batches of 100, two threads; with both, with each alone, and with neither. What is timed begins when
the stage's imports are done and ends when its files are written and its run is shown; loading MLflow meanwhile counts. A round
runs all cases, so that a slow minute of the machine slows all of them; medians of rounds. Beside the seconds by the clock,
which vary by a tenth on a shared machine, stand those that the processors worked. About 20 minutes on two cores;
``--quick`` gives a rough answer within two minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import pandas as pd
from rich.progress import track
from ruamel.yaml import YAML

from benchmarks.harness import HIDDEN, LATENT, Report, random_rows
from pipeline.files import from_yaml

ROOT = Path(__file__).resolve().parents[1]
ROWS = 60_000
CASES = {
    "neither": {"tracking": False, "saving": False},
    "tracking alone": {"tracking": True, "saving": False},
    "saving alone": {"tracking": False, "saving": True},
    "both": {"tracking": True, "saving": True},
}
TIMED = """
import sys, time
from pipeline import saved, train
if sys.argv[1] == "no saving":
    saved.Saved.save, saved.Saved.load = lambda *_: None, lambda *_: None
start, worked = time.perf_counter(), time.process_time()
train.main()
print("seconds", time.perf_counter() - start, time.process_time() - worked)
"""


def main() -> int:
    """Print the table."""
    arguments = _arguments()
    epochs, repeats = (2, 1) if arguments.quick else (arguments.epochs, arguments.repeats)
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        folder = _prepared(Path(name), epochs)
        runs = track([(number, case) for number in range(repeats) for case in arguments.cases], "runs")
        timed = {(number, case): _seconds(folder, **CASES[case]) for number, case in runs}
    seconds, worked = (
        {case: statistics.median(timed[number, case][of] for number in range(repeats)) for case in arguments.cases}
        for of in (0, 1)
    )
    report = Report()
    rows = [
        [case, f"{seconds[case]:.1f}", _more(seconds, case), f"{worked[case]:.1f}", _more(worked, case)] for case in seconds
    ]
    headings = ["with", "seconds", "more", "of processors", "more"]
    report.table(f"Training, {epochs} epochs of {ROWS:,} x 784, medians of {repeats}", headings, rows)
    for case in seconds:
        report.add(f"{case.replace(' ', '_')}_seconds", seconds[case])
        report.add(f"{case.replace(' ', '_')}_processor_seconds", worked[case])
    report.add("training_alone_ratio", seconds["neither"] / seconds["both"])
    if arguments.json:
        report.write(arguments.json)
    return 0


def _more(seconds: dict[str, float], case: str) -> str:
    return f"{100 * (seconds[case] / seconds['neither'] - 1):+.1f} %"


def _prepared(folder: Path, epochs: int) -> Path:
    """A workspace whose data is prepared."""
    rows = random_rows(ROWS + 2000).numpy().astype("int8")
    (folder / "data/raw").mkdir(parents=True)
    pd.DataFrame(rows, columns=[f"p{i}" for i in range(rows.shape[1])]).to_parquet(folder / "data/raw/rows.parquet")
    params = from_yaml((ROOT / "params.yaml").read_text())
    params["data"] |= {"path": "data/raw/rows.parquet", "exclude": [], "shape": [28, 28], "dequantize": None, "scale": "none"}
    params["data"]["fractions"] = {"train": 60 / 62, "valid": 1 / 62, "test": 1 / 62}
    params["model"] |= {"latent_dim": LATENT, "likelihood": {"name": "bernoulli"}, "generative": HIDDEN, "inference": HIDDEN}
    params["train"] |= {"max_epochs": epochs, "patience": None, "batch_size": 100}
    _write(folder / "params.yaml", params)
    stages = from_yaml((ROOT / "dvc.yaml").read_text())
    for stage in stages["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.endswith(".py")]
    _write(folder / "dvc.yaml", stages)
    _run(folder, "from pipeline import prepare; prepare.main()", "", tracking=False)
    return folder


def _write(path: Path, content: object) -> None:
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)


def _seconds(folder: Path, *, tracking: bool, saving: bool) -> tuple[float, float]:
    """Of one training, from nothing: by the clock, and of all processors."""
    for left in (".evidence", "mlartifacts", "models", "results/train"):
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "mlflow.db").unlink(missing_ok=True)
    output = _run(folder, TIMED, "saving" if saving else "no saving", tracking=tracking)
    assert (folder / "mlflow.db").exists() == tracking, "the run is shown if it is asked for"
    assert bool(list(folder.glob(".evidence/saved/train-*/*.state"))) == saving, "so is the state saved"
    seconds, worked = output.split()[-2:]
    return float(seconds), float(worked)


def _run(folder: Path, code: str, argument: str, *, tracking: bool) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    environment |= {"EVIDENCE_TRACKING": "on" if tracking else "off"}
    command = [sys.executable, "-W", "ignore", "-c", code, argument]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="neither and both at least")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
