"""How long it takes to start and to end: stages and commands of `make repro`, and `dvc repro` with nothing to do.

    python benchmarks/startup.py [--repeats 9] [--before REVISION] [--quick] [--json FILE]

Run it where `make repro` has run, in its environment. Medians of interleaved repeats; `dvc_status_over_repro_ratio` compares
`dvc repro` with `dvc status`, which has to look at the same files. Of stages, with MLflow: the seconds until their work begins
and those after it, in clones of the last commit and, with ``--before``, of another one; ratios are the other's time over the
last one's. The clones hold the digits with little work, as it is what is around it that counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

from benchmarks.harness import cpu, medians
from benchmarks.report import Report, options
from benchmarks.workspace import ROOT, write_yaml
from pipeline.base.files import from_yaml

PYTHON = sys.executable
DVC = str(Path(PYTHON).parent / "dvc")
COMMANDS = {
    "python, doing nothing": [PYTHON, "-c", ""],
    "python -m pipeline.prepare --help": [PYTHON, "-m", "pipeline.prepare", "--help"],
    "python -m pipeline.train --help": [PYTHON, "-m", "pipeline.train", "--help"],
    "dvc status": [DVC, "status"],
    "dvc repro, with nothing to do": [DVC, "repro"],
}

STAGES, OTHERS = ("prepare", "train", "evaluate", "generate"), ("recover", "check", "publish", "summary")
PARTS = {"start": "until its work begins", "end": "after its work"}
LITTLE = {
    "train": {"max_epochs": 1},
    "evaluate": {
        **{"samples": 50, "prior_samples": 200, "elbo_samples": 5, "diagnostics_examples": 5, "mixture_components": [1]},
        "annealing": {"chains": 4, "temperatures": 4, "leapfrog_steps": 1, "bounds_examples": 5, "extra": 0.0},
    },
    "generate": {"samples": 20},
}
TIMED = """
import runpy, sys, time
from contextlib import contextmanager
from pipeline.stages import job

stage, running = sys.argv.pop(), job.running

@contextmanager
def timed(*arguments):
    with running(*arguments) as one:
        print("start", time.monotonic(), flush=True)
        yield one
        print("end", time.monotonic(), flush=True)

job.running = timed
runpy.run_module(f"pipeline.{stage}", run_name="__main__", alter_sys=True)
"""


def main() -> int:
    """Print the tables."""
    arguments, report = _arguments(), Report()
    run(COMMANDS["dvc repro, with nothing to do"])
    cases = {name: lambda command=command: run(command) for name, command in COMMANDS.items()}
    repeats = 1 if arguments.quick else arguments.repeats
    found = medians(cpu(1), cases, repeats)
    report.table("Start-up", ["", "seconds"], [[name, f"{seconds:.2f}"] for name, seconds in found.items()])
    status, repro = list(found.values())[-2:]
    report.say(f"dvc repro takes {repro / status:.2f} times as long as dvc status")
    report.add("prepare_help_seconds", found["python -m pipeline.prepare --help"])
    report.add("dvc_status_over_repro_ratio", status / repro)
    report_around(report, arguments.before, repeats)
    if arguments.json:
        report.write(arguments.json)
    return 0


def report_around(report: Report, before: str | None, repeats: int) -> None:
    """The table of what is around the work of stages, and of what other commands take."""
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        clones = [clone(Path(name) / revision, revision) for revision in ("HEAD", before) if revision]
        rounds = [[around(folder) for folder in clones] for _ in range(repeats + 1)][1:]
    columns = [{part: median(each[k][part] for each in rounds) for part in rounds[0][k]} for k in range(len(clones))]
    rows = []
    for part, seconds in columns[0].items():
        report.add(f"{part.replace(' ', '_')}_seconds", seconds)
        if before:
            report.add(f"{part.replace(' ', '_')}_ratio", columns[1][part] / seconds)
        stage, _, which = part.partition(" ")
        rows.append([" ".join(filter(None, (stage, PARTS.get(which)))), *(f"{column[part]:.2f}" for column in columns)])
    report.table("Around the work, with MLflow", ["", "seconds", *([f"at {before}"] if before else [])], rows)


def clone(folder: Path, revision: str) -> Path:
    """A clone of this repository at a revision, with little to do."""
    run(["git", "clone", "--quiet", str(ROOT), str(folder)])
    run(["git", "-C", str(folder), "checkout", "--quiet", "--detach", revision])
    params = from_yaml((folder / "params.yaml").read_text())
    for section, settings in LITTLE.items():
        params[section] |= settings
    write_yaml(folder / "params.yaml", params)
    return folder


def around(folder: Path) -> dict[str, float]:
    """Seconds of each stage until its work begins and after it, and of each other command, all with MLflow."""
    seconds = dict[str, float]()
    environment = {**os.environ, "EVIDENCE_TRACKING": "on", "EVIDENCE_FRESH": "1"}
    for stage in STAGES:
        begin = time.monotonic()
        said = run([PYTHON, "-W", "ignore", "-c", TIMED, stage], folder, environment)
        end = time.monotonic()
        noted = dict(line.split() for line in said.splitlines() if line.startswith(("start ", "end ")))
        seconds |= {f"{stage} start": float(noted["start"]) - begin, f"{stage} end": end - float(noted["end"])}
    for name in OTHERS:
        begin = time.monotonic()
        run([PYTHON, "-W", "ignore", "-m", f"pipeline.{name}"], folder, environment)
        seconds[name] = time.monotonic() - begin
    return seconds


def run(command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        RuntimeError: If it fails, with what it said.
    """
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--before", metavar="REVISION", help="another commit, to compare with")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
