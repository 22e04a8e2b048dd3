"""What a training and an evaluation cost beside others: side by side with one like them, and beside one busy loop per core.

    python benchmarks/contention.py [--repeats 3] [--only CASE ...] [--quick] [--json FILE]

The stages run as `dvc repro` runs them, on the digits, in two clones of the last commit; medians of the repeats, start-up
included. A training also with two threads, as this project has them wait for each other (GOMP_SPINCOUNT, see
`pipeline/__init__.py`) and as libgomp does by itself. ``side_by_side`` ratios: the time of two one after the other over that
of two at once, so that 1 and above is no loss; ``busy`` ratios are the time alone over that beside the loops.
An hour and a half on two slow cores; ``--quick`` measures the training once.
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

from ruamel.yaml import YAML

from benchmarks.report import Report, options

ROOT = Path(__file__).resolve().parents[1]
OF_LIBGOMP = "300000"  # spins, where there are no more threads than cores
# stage, threads in params.yaml, and more of an environment, by name
CASES: Mapping[str, tuple[str, int | None, dict[str, str]]] = {
    "train": ("train", None, {}),
    "train, 2 threads": ("train", 2, {}),
    "train, 2 threads that wait as libgomp has it": ("train", 2, {"GOMP_SPINCOUNT": OF_LIBGOMP}),
    "evaluate": ("evaluate", None, {}),
    "evaluate, 1 worker": ("evaluate", None, {"EVIDENCE_WORKERS": "1"}),
}
BUSY = "while True: pass"


def main() -> int:
    """Print the table."""
    arguments = _arguments()
    repeats, cases = (1, ["train"]) if arguments.quick else (arguments.repeats, arguments.only)
    report, lines = Report(), []
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        folders = [_clone(Path(name) / part) for part in ("one", "other")]
        for case in cases:
            stage, threads, environment = CASES[case]
            for folder in folders:
                _set_threads(folder, threads)
            seconds = {
                "alone": median(_seconds(folders[:1], stage, environment) for _ in range(repeats)),
                "side_by_side": median(_seconds(folders, stage, environment) for _ in range(repeats)),
                "busy": median(_beside_loops(folders[0], stage, environment) for _ in range(repeats)),
            }
            ratios = {
                "side_by_side": 2 * seconds["alone"] / seconds["side_by_side"],
                "busy": seconds["alone"] / seconds["busy"],
            }
            lines.append(
                [case, *(f"{value:.1f}" for value in seconds.values()), *(f"{ratio:.2f}" for ratio in ratios.values())]
            )
            short = case.replace(" that wait as libgomp has it", " libgomp").replace(",", "").replace(" ", "_")
            for what, ratio in ratios.items():
                report.add(f"{short}_{what}_ratio", ratio)
            report.add(f"{short}_seconds", seconds["alone"])
    columns = [
        "seconds",
        "alone",
        "two side by side",
        "beside a loop per core",
        "one after the other / side by side",
        "alone / beside",
    ]
    report.table(f"The digits on {os.cpu_count()} cores, medians of {repeats}", columns, lines)
    if arguments.json:
        report.write(arguments.json)
    return 0


def _clone(folder: Path) -> Path:
    """The last commit, with everything made that stages need."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    for stage in ("prepare", "train"):
        _seconds([folder], stage, {})
    return folder


def _set_threads(folder: Path, threads: int | None) -> None:
    yaml = YAML()
    params = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["threads"] = threads
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def _seconds(folders: Sequence[Path], stage: str, environment: Mapping[str, str]) -> float:
    """How long the stage takes in all of the folders at once."""
    given = {**os.environ, "EVIDENCE_TRACKING": "off", "EVIDENCE_FRESH": "1", **environment}
    begin = time.perf_counter()
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    running = [subprocess.Popen(command, cwd=folder, env=given, stdout=subprocess.DEVNULL) for folder in folders]
    for process in running:
        if process.wait():
            raise SystemExit(f"the stage {stage} failed")
    return time.perf_counter() - begin


def _beside_loops(folder: Path, stage: str, environment: Mapping[str, str]) -> float:
    """How long the stage takes beside as many busy processes as there are cores."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        return _seconds([folder], stage, environment)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=list(CASES), default=list(CASES), help="all by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
