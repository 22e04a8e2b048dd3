"""What `python -m pipeline.check` foretells of each stage, beside what it takes, for presets.

    python benchmarks/foretelling.py [--only NAME ...] [--raw FOLDER] [--stages NAME ...] [--quick] [--json FILE]

The files of the presets are those in ``--raw``, data/raw by default; a preset whose file is not there is left out. The stages
run in a clone of the last commit, one after the other, with MLflow off. ``waited`` is the share of a stage's minutes that its
threads waited for a core beside other processes, where the system counts that (Linux); ratios are of the rest, as what is
foretold is for an idle machine. GiB are the most that all processes of a stage hold together, where what they share counts
once. A ``ratio`` is what was foretold over what it took: 0.5 to 2 is as promised. Ten minutes on two idle cores; diamonds and
the MNIST presets take an hour more and have to be asked for. ``--quick`` runs the penguins.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import psutil

from benchmarks.report import Report, options
from pipeline.base.files import from_yaml
from pipeline.experiment.records import STAGES

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
EVERY = 0.2  # seconds between two looks at the memory
PRESETS = ("digits", "penguins", "titanic", "nltcs")
PROGRAM = """
import json, sys
from pipeline.foretelling.forecast import forecast
from pipeline.params.whole import load_params
expected = forecast(load_params(), sys.argv[1:])
print(json.dumps({stage: [taken.seconds, taken.size] for stage, taken in expected.items()}))
"""


def main() -> int:
    """Print the table."""
    arguments, report, lines = _arguments(), Report(), []
    for preset in ["penguins"] if arguments.quick else arguments.only:
        with tempfile.TemporaryDirectory(prefix="evidence-") as name:
            folder = _clone(Path(name) / "clone", preset, arguments.raw)
            if folder is None:
                report.say(f"{preset}: its data is not in {arguments.raw}")
                continue
            foretold = from_yaml(_run(folder, "-c", PROGRAM, *arguments.stages))
            for stage in arguments.stages:
                seconds, waited, size = _measured(folder, stage)
                pairs = {"minutes": (foretold[stage][0] / 60, seconds / 60), "gib": (foretold[stage][1] / GIB, size / GIB)}
                ratios = {"minutes": foretold[stage][0] / seconds / (1 - waited), "gib": foretold[stage][1] / size}
                cells = [*pairs["minutes"], waited, ratios["minutes"], *pairs["gib"], ratios["gib"]]
                lines.append([f"{preset}, {stage}", *(f"{value:.2f}" for value in cells)])
                for what, (_, taken) in pairs.items():
                    report.add(f"{preset}_{stage}_{what}", taken)
                    report.add(f"{preset}_{stage}_{what}_ratio", ratios[what])
    columns = ["", "minutes foretold", "taken", "waited", "ratio", "GiB foretold", "taken", "ratio"]
    report.table(f"What the stages take on {os.cpu_count()} cores", columns, lines)
    if arguments.json:
        report.write(arguments.json)
    return 0


def _clone(folder: Path, preset: str, raw: Path) -> Path | None:
    """The last commit with a preset's params and data; None where the data is not there."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    if preset != "digits":
        shutil.copy(folder / "presets" / f"{preset}.yaml", folder / "params.yaml")
        path = Path(from_yaml((folder / "params.yaml").read_text())["data"]["path"]).name
        if not (raw / path).exists():
            return None
        copy = shutil.copytree if (raw / path).is_dir() else shutil.copy
        copy(raw / path, folder / "data/raw" / path)
    return folder


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "DVC_ROOT": str(folder), "EVIDENCE_TRACKING": "off"}


def _run(folder: Path, *arguments: str) -> str:
    """What a program prints that runs in a folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=_environment(folder), stdout=subprocess.PIPE, text=True, check=True).stdout


def _measured(folder: Path, stage: str) -> tuple[float, float, int]:
    """Seconds that a stage takes, the share of them that it waited for a core, and the bytes that it held."""
    command, begin, most = [sys.executable, "-m", f"pipeline.{stage}"], time.perf_counter(), 0
    process = psutil.Popen(command, cwd=folder, env=_environment(folder), stdout=subprocess.DEVNULL)
    times: dict[str, tuple[int, int]] = {}  # by thread
    while process.poll() is None:
        with suppress(psutil.Error):  # one of them has ended
            running = [process, *process.children(recursive=True)]
            most = max(most, sum(each.memory_full_info().pss for each in running))
            times |= _times(running)
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"the stage {stage} failed")
    ran, waited = (sum(column) for column in zip(*times.values(), strict=True)) if times else (1, 0)
    return time.perf_counter() - begin, waited / (ran + waited), most


def _times(processes: Iterable[psutil.Process]) -> dict[str, tuple[int, int]]:
    """Nanoseconds that threads ran and that they waited for a core, as far as the system counts them."""
    times = {}
    for process in processes:
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended
                ran, waited, _ = map(int, path.read_text().split())
                times[path.parent.name] = ran, waited
    return times


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=list(PRESETS), help=f"presets; {', '.join(PRESETS)} by default"
    )
    parser.add_argument("--raw", type=Path, metavar="FOLDER", default=ROOT / "data/raw", help="where the presets' files are")
    parser.add_argument("--stages", nargs="+", metavar="NAME", choices=STAGES, default=list(STAGES), help="all by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
