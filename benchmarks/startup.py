"""How long it takes to start: a stage that is asked for help, and `dvc repro` with nothing to do beside `dvc status`.

    python benchmarks/startup.py [--repeats 9] [--quick] [--json FILE]

Run it where `make repro` has run, in its environment. Medians of interleaved repeats; `dvc_status_over_repro_ratio` compares
`dvc repro` with `dvc status`, which has to look at the same files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

from benchmarks.harness import cpu, medians
from benchmarks.report import Report, options

PYTHON = sys.executable
DVC = str(Path(PYTHON).parent / "dvc")
COMMANDS = {
    "python, doing nothing": [PYTHON, "-c", ""],
    "python -m pipeline.prepare --help": [PYTHON, "-m", "pipeline.prepare", "--help"],
    "python -m pipeline.train --help": [PYTHON, "-m", "pipeline.train", "--help"],
    "dvc status": [DVC, "status"],
    "dvc repro, with nothing to do": [DVC, "repro"],
}


def main() -> int:
    """Print the table."""
    arguments, report = _arguments(), Report()
    run(COMMANDS["dvc repro, with nothing to do"])
    cases = {name: lambda command=command: run(command) for name, command in COMMANDS.items()}
    found = medians(cpu(1), cases, 3 if arguments.quick else arguments.repeats)
    report.table("Start-up", ["", "seconds"], [[name, f"{seconds:.2f}"] for name, seconds in found.items()])
    status, repro = list(found.values())[-2:]
    report.say(f"dvc repro takes {repro / status:.2f} times as long as dvc status")
    report.add("prepare_help_seconds", found["python -m pipeline.prepare --help"])
    report.add("dvc_status_over_repro_ratio", status / repro)
    if arguments.json:
        report.write(arguments.json)
    return 0


def run(command: Sequence[str]) -> float:
    """Seconds of a command.

    Raises:
        RuntimeError: If it fails, with what it said.
    """
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return time.perf_counter() - begin


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
