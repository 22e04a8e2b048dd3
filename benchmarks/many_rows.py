"""Evaluate and generate with a million test rows: the time that a stage takes, and the memory of each of its processes.

    python benchmarks/many_rows.py [--rows 1000000] [--columns 20] [--gaps] [--quick] [--json FILE]

Importance sampling of all rows with S = 10, annealing of 100, bounds on 20 simulated ones; a model of 8 latent dimensions,
trained for an epoch on 20,000 rows. A quarter of the rows first, to see whether the time is linear in them. With ``--gaps`` a
tenth of the values is missing, and is filled in. The exit status is 1 if a process took more than 1 GiB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Report, options
from benchmarks.workspace import ROOT, write_yaml
from pipeline.base.files import from_yaml

GIB = 2**30
OTHERS = 20_000  # training rows, and as many validation rows
BLOCK = 2**17
STAGES = ("prepare", "train", "evaluate", "generate")


def main() -> int:
    """Print the table."""
    arguments = _arguments()
    most = 50_000 if arguments.quick else arguments.rows
    report, lines, seconds, largest = Report(), [], {}, 0.0
    for rows in (most // 4, most):
        with tempfile.TemporaryDirectory(prefix="evidence-") as name:
            folder = _workspace(Path(name), rows, arguments.columns, arguments.gaps)
            for stage in STAGES:
                took, own, others = _measured(folder, stage)
                seconds[stage, rows] = took
                largest = max(largest, own, others) if stage in ("evaluate", "generate") else largest
                if stage in ("evaluate", "generate"):
                    lines.append([f"{stage}, {rows:,} rows", f"{took:.0f}", f"{own / 2**20:,.0f}", f"{others / 2**20:,.0f}"])
                    report.add(f"{stage}_{rows}_seconds", took)
                    report.add(f"{stage}_{rows}_peak_mib", max(own, others) / 2**20)
    columns = ["stage", "seconds", "MiB of the stage", "MiB of the largest worker"]
    report.table(f"{arguments.columns} columns{', with gaps' if arguments.gaps else ''}", columns, lines)
    ratio = 4 * seconds["evaluate", most // 4] / seconds["evaluate", most]
    report.add("evaluate_linear_ratio", ratio)
    report.say(f"four times the rows take evaluate {4 / ratio:.2f} times as long")
    if arguments.json:
        report.write(arguments.json)
    return int(largest > GIB)


def _workspace(folder: Path, rows: int, columns: int, gaps: bool) -> Path:
    """A folder with so many test rows, in which the stages can run."""
    (folder / "data/raw").mkdir(parents=True)
    for number, (split, count) in enumerate({"train": OTHERS, "valid": OTHERS, "test": rows}.items()):
        _generate(folder / f"data/raw/{split}.parquet", count, columns, gaps, number)
    params = from_yaml((ROOT / "params.yaml").read_text())
    files = {split: f"{split}.parquet" for split in ("train", "valid", "test")}
    params["data"] |= {"path": "data/raw", "files": files, "exclude": [], "shape": None, "dequantize": None}
    params["model"] |= {"latent_dim": 8, "likelihood": {"name": "mixed" if gaps else "gaussian_per_dimension"}}
    params["model"] |= {"generative": {"hidden": [64]}, "inference": {"hidden": [64]}, "prior": {"name": "standard_normal"}}
    params["train"] |= {"max_epochs": 1, "batch_size": 512, "hide": None}
    annealing = {"examples": 100, "chains": 10, "temperatures": 50, "bounds_examples": 20}
    params["evaluate"] |= {"estimators": ["importance", "annealed", "bounds"], "samples": 10, "elbo_samples": 10}
    params["evaluate"] |= {"annealing": annealing, "imputation": {"samples": 10, "draws": 10, "examples": 100}}
    write_yaml(folder / "params.yaml", params)
    stages = from_yaml((ROOT / "dvc.yaml").read_text())
    for stage in stages["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if dep.split("/")[0] not in ("pipeline", "vae")]
    write_yaml(folder / "dvc.yaml", stages)
    return folder


def _generate(path: Path, rows: int, columns: int, gaps: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(3).normal(size=(4, columns))
    names = [f"x{d}" for d in range(columns)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
        for first in range(0, rows, BLOCK):
            x = rng.normal(size=(min(BLOCK, rows - first), 4)) @ weights
            x += rng.normal(size=x.shape)
            table = pd.DataFrame(np.where(rng.random(x.shape) < 0.1, np.nan, x) if gaps else x, columns=names)
            writer.write_table(pa.Table.from_pandas(table, schema=writer.schema, preserve_index=False))


def _measured(folder: Path, stage: str) -> tuple[float, int, int]:
    """Seconds of a stage, its own peak memory in bytes, and that of its largest worker."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "EVIDENCE_TRACKING": "off"}
    begin = time.perf_counter()
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        own, others = 0, 0
        while process.poll() is None:
            with suppress(psutil.Error, OSError):
                own = max(own, _peak(process.pid))
                children = psutil.Process(process.pid).children(recursive=True)
                others = max([others, *(_peak(child.pid) for child in children)])
            time.sleep(0.2)
        assert process.stderr is not None
        if process.returncode:
            raise SystemExit(f"{stage} failed: {process.stderr.read().decode()}")
    return time.perf_counter() - begin, own, others


def _peak(pid: int) -> int:
    """The largest resident size of a process so far, in bytes, files that it maps included; 0 where it has just ended."""
    _, _, rest = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")
    return int(rest.split()[0]) * 1024 if rest else 0


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--gaps", action="store_true", help="a tenth of the values is missing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
