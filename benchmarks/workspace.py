"""A folder in which the stages run as `dvc repro` runs them, on rows of MNIST's size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from benchmarks.harness import HIDDEN, LATENT, random_rows
from pipeline.base.files import from_yaml

ROOT = Path(__file__).resolve().parents[1]
SHARE = 60  # training rows for each validation row, and for each test row: 1,000 of each beside 60,000


def prepared(folder: Path, count: int, train: Mapping[str, Any]) -> Path:
    """A workspace with so many training rows of 784 binary columns, prepared; ``train`` is that section of params.yaml."""
    held_out = count // SHARE
    rows = random_rows(count + 2 * held_out).numpy().astype("int8")
    (folder / "data/raw").mkdir(parents=True)
    pd.DataFrame(rows, columns=[f"p{i}" for i in range(rows.shape[1])]).to_parquet(folder / "data/raw/rows.parquet")
    params = from_yaml((ROOT / "params.yaml").read_text())
    params["data"] |= {"path": "data/raw/rows.parquet", "exclude": [], "shape": [28, 28], "dequantize": None, "scale": "none"}
    shares = {"train": count, "valid": held_out, "test": held_out}
    params["data"]["fractions"] = {split: share / len(rows) for split, share in shares.items()}
    params["model"] = {"latent_dim": LATENT, "likelihood": {"name": "bernoulli"}, "generative": HIDDEN, "inference": HIDDEN}
    params["threads"] = 2
    write_yaml(folder / "params.yaml", params)
    change(folder, patience=None, ema_decay=None, **train)
    stages = from_yaml((ROOT / "dvc.yaml").read_text())
    for stage in stages["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if dep.split("/")[0] not in ("pipeline", "vae")]
    write_yaml(folder / "dvc.yaml", stages)
    run(folder, "from pipeline.stages import prepare; prepare.main()", tracking=False)
    return folder


def change(folder: Path, seed: int = 0, **train: Any) -> None:
    """Other settings of the training."""
    params = from_yaml((folder / "params.yaml").read_text())
    params["seed"] = seed
    params["train"] |= train
    write_yaml(folder / "params.yaml", params)


def write_yaml(path: Path, content: object) -> None:
    """Write a YAML file."""
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)


def run(folder: Path, code: str, *arguments: str, tracking: bool) -> str:
    """What a program prints that runs in the workspace.

    Raises:
        RuntimeError: If it fails, with what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    environment |= {"EVIDENCE_TRACKING": "on" if tracking else "off"}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout
