"""Same inputs, same bytes: a short training and evaluation in many fresh processes on a loaded machine; how many outcomes?

    python benchmarks/same_bytes.py [--repeats 400] [--jobs 4] [--full] [--cold] [--quick] [--json FILE]

Each repeat is a process of its own with two threads, in a folder of its own, that trains a small VAE with tanh networks on the
bundled digits, evaluates it by prior and importance sampling, and draws its figures. ``--jobs`` of them run at a time, so that
every core has others' work to do. ``--full`` evaluates with annealing, bounds and diagnostics too. ``--cold`` leaves out the
one-element calls that precede parallel work, to show what they are for. Exit status 1 if outcomes differ. Half an hour on
two cores; ``--quick`` takes 8 repeats.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

from benchmarks.report import Report, options
from pipeline.base.files import files_in
from pipeline.dvc.formats import md5

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = {"hidden": [200], "activation": "tanh"}
SETTINGS = {
    "threads": 2,
    "model.latent_dim": 8,
    "model.generative": HIDDEN,
    "model.inference": HIDDEN,
    "train.max_epochs": 1,
    "train.batch_size": 256,
    "evaluate.estimators": ["prior", "importance"],
    "evaluate.samples": 100,
    "evaluate.prior_samples": 2000,
    "evaluate.elbo_samples": 10,
    "evaluate.annealing": {"chains": 4, "temperatures": 8, "leapfrog_steps": 2, "bounds_examples": 20},
    "evaluate.diagnostics_examples": 10,
    "evaluate.mixture_components": [1],
}
CODE = "from pipeline.stages import evaluate, train; train.main(); evaluate.main()"
COLD = "from pipeline.base import compute; compute.FUNCTIONS = (); "


def main() -> int:
    """Print the table; 1 if repeats differ."""
    arguments = _arguments()
    repeats = 8 if arguments.quick else arguments.repeats
    with tempfile.TemporaryDirectory(prefix="evidence-") as name:
        folder = _prepared(Path(name), {"evaluate.estimators": None} if arguments.full else {})
        with ThreadPoolExecutor(arguments.jobs) as pool:
            started = [pool.submit(_repeat, folder, number, cold=arguments.cold) for number in range(repeats)]
            found = [repeat.result() for repeat in track(started, "repeats")]
    sets = Counter(tuple(sorted(files.items())) for files in found)
    usual = dict(sets.most_common(1)[0][0])
    changed = sorted({path for files in found for path in files if files[path] != usual[path]})
    report = Report()
    rows = [["repeats", str(repeats)], ["files compared in each", str(len(usual))], ["sets of bytes", str(len(sets))]]
    report.table(f"Same inputs, same bytes ({arguments.jobs} at a time on {os.cpu_count()} cores)", ["", ""], rows)
    report.say(f"files that differ: {', '.join(changed) or 'none'}")
    report.add("repeats", repeats)
    report.add("sets_of_bytes", len(sets))
    report.add("repeats_of_other_bytes", repeats - sets.most_common(1)[0][1])
    if arguments.json:
        report.write(arguments.json)
    return int(len(sets) > 1)


def _prepared(folder: Path, changes: dict[str, object]) -> Path:
    """A workspace whose data is prepared."""
    workspace = folder / "workspace"
    workspace.mkdir()
    shutil.copytree(ROOT / "data" / "raw", workspace / "data" / "raw")
    yaml = YAML(typ="safe", pure=True)
    _write(yaml, workspace / "params.yaml", _changed(yaml.load(ROOT / "params.yaml"), {**SETTINGS, **changes}))
    stages = yaml.load(ROOT / "dvc.yaml")
    for stage in stages["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if dep.split("/")[0] not in ("pipeline", "vae")]
    _write(yaml, workspace / "dvc.yaml", stages)
    _run(workspace, "from pipeline.stages import prepare; prepare.main()")
    return workspace


def _changed(params: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    for path, value in changes.items():
        section, _, name = path.rpartition(".")
        (params[section] if section else params)[name] = value  # type: ignore[index]
    return params


def _write(yaml: YAML, path: Path, content: object) -> None:
    with path.open("w") as file:
        yaml.dump(content, file)


def _repeat(workspace: Path, number: int, *, cold: bool) -> dict[str, str]:
    own = workspace.with_name(f"repeat{number}")
    shutil.copytree(workspace, own)
    _run(own, (COLD if cold else "") + CODE)
    files = {str(path.relative_to(own)): md5(path) for path in files_in([own / "models", own / "results"])}
    shutil.rmtree(own)
    return files


def _run(folder: Path, code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "EVIDENCE_TRACKING": "off"}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that wait leave their core to the other repeats
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=4, help="processes at a time")
    parser.add_argument("--full", action="store_true", help="every estimator")
    parser.add_argument("--cold", action="store_true", help="without the one-element calls before parallel work")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
