"""A small repository of the user's: params, data, and the stages run in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from pipeline.params.data import Data
from pipeline.reading.formats import read_blocks
from pipeline.tables.schema import SPLITS

ROOT = Path(__file__).parent.parent

TINY: dict[str, Any] = {
    "data.path": "data/raw/table.csv",
    "data.exclude": [],
    "data.shape": None,
    "data.dequantize": None,
    "model.latent_dim": 2,
    "model.prior": {"name": "standard_normal"},
    "model.generative.hidden": [8],
    "model.inference.hidden": [8],
    "train.objective": {"name": "elbo", "samples": 1, "kl": "closed_form"},
    "train.max_epochs": 2,
    "train.patience": None,
    "train.ema_decay": None,
    "evaluate.estimators": ["prior", "importance", "annealed", "bounds"],
    "evaluate.samples": 50,
    "evaluate.prior_samples": 200,
    "evaluate.annealing": {"chains": 4, "temperatures": 6, "leapfrog_steps": 2, "bounds_examples": 5},
    "evaluate.diagnostics_examples": 5,
    "evaluate.elbo_samples": 5,
    "evaluate.mixture_components": [1, 2],
    "generate.samples": 20,
    "threads": 1,
}

BINARY = {"data.scale": "none", "model.likelihood": {"name": "bernoulli"}}


def params_with(changes: Mapping[str, Any]) -> Any:
    """The shipped params.yaml with these dotted paths changed."""
    content = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    for path, value in changes.items():
        section, (*steps, last) = content, path.split(".")
        for step in steps:
            section = section[step]
        section[last] = value
    return content


def write_params(folder: Path, **changes: Any) -> None:
    """params.yaml in ``folder``: tiny settings, then ``changes`` by dotted path."""
    yaml = YAML(typ="safe", pure=True)
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params_with({**TINY, **changes}), file)
    if not (folder / "dvc.yaml").exists():
        write_pipeline(folder)


def write_pipeline(folder: Path, code: Sequence[str] = ()) -> None:
    """The shipped dvc.yaml in ``folder``, its stages depending on data and on these files of code alone."""
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load((ROOT / "dvc.yaml").read_text())
    for stage in content["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if dep.split("/")[0] not in ("pipeline", "vae")] + list(code)
    with (folder / "dvc.yaml").open("w") as file:
        yaml.dump(content, file)


def table(kind: str = "continuous", rows: int = 60) -> pd.DataFrame:
    """Four correlated columns of numbers, of integers, or of zeros and ones."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(rows, 4)) + [0, 5, -2, 100]
    if kind == "integer":
        values = np.round(values * 3)
    if kind == "binary":
        values = values > values.mean(axis=0)
    names = ["a", "b", "c", "d"]
    return pd.DataFrame(values if kind == "continuous" else values.astype(int), columns=names)


def mixed_table(rows: int = 60, *, gaps: bool = False) -> pd.DataFrame:
    """A column of each kind; ``gaps`` leaves every seventh value of each out."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=rows)
    columns = {
        "height": np.round(z + rng.normal(size=rows), 3),
        "visits": rng.poisson(np.exp(z)),
        "sex": np.where(z + rng.normal(size=rows) > 0, "female", "male"),
        "smokes": (z > rng.normal(size=rows)).astype(int),
        "colour": np.array(["blue", "green", "red"])[rng.integers(0, 3, rows)],
        "grade": np.digitize(z, [-0.7, 0.7]) + 1,
    }
    frame = pd.DataFrame(columns)
    hidden = (np.arange(rows)[:, None] + np.arange(6)) % 7 == 0
    return frame.mask(hidden) if gaps else frame


def read_table(data: Data) -> tuple[pd.DataFrame, list[str | None]]:
    """All rows that ``data`` names, and for each the split that is settled."""
    frames, labels = zip(*read_blocks(data), strict=True)
    return pd.concat(frames, ignore_index=True), [None if part < 0 else SPLITS[part] for part in np.concatenate(labels)]


def write_table(folder: Path, frame: pd.DataFrame | None = None, name: str = "table.csv") -> Path:
    """``frame`` as data/raw/NAME under ``folder``."""
    path = folder / "data" / "raw" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = table() if frame is None else frame
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path
