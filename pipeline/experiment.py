"""What an experiment is: the params, the raw data and the code that its stages depend on, joined into one digest."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.files import md5
from pipeline.params import Params

# what a run writes itself does not make the tree dirty
OUTPUTS = [f":(exclude){path}" for path in ("dvc.lock", "results", "models", "data/prepared", "**/.gitignore")]


@dataclass(frozen=True)
class Experiment:
    """An experiment's identity.

    Attributes:
        digest: Same params, raw data and code: same digest, in any clone, at any time.
        name: DVC's name of the experiment, or the data's name and the digest's first characters.
        tags: Where it came from: commit, whether the tree was dirty, DVC experiment, md5 of the data.
    """

    digest: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)


def describe(params: Params) -> Experiment:
    """The experiment that the working directory now holds."""
    data = md5(Path(params.data.path))
    code = {path: md5(Path(path)) for path in _code()}
    content = {"params": params.model_dump(), "data": data, "code": code}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    exp_name = os.environ.get("DVC_EXP_NAME", "")
    tags = {
        "evidence.digest": digest,
        "data.md5": data,
        "dvc.experiment": exp_name,
        "git.dirty": str(bool(_git("status", "--porcelain", "--", ".", *OUTPUTS))).lower(),
        "mlflow.source.git.commit": _git("rev-parse", "HEAD"),
    }
    return Experiment(digest, exp_name or f"{Path(params.data.path).stem}-{digest[:7]}", tags)


def main_repository() -> Path:
    """The repository of the user, also inside the throw-away copies of ``dvc exp run --temp`` and of queue workers."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def is_current(stage: str) -> bool:
    """Whether the outputs of ``stage`` on disk are those of this experiment, by what dvc.lock recorded when it last ran."""
    lock = _yaml(Path("dvc.lock")).get("stages", {})
    entry = lock.get(stage)
    if entry is None or not _params_are(entry):
        return False
    folders = {out["path"]: out["md5"] for other in lock.values() for out in other["outs"] if Path(out["path"]).is_dir()}
    return all(_is_as_recorded(file, folders) for file in (*entry["deps"], *entry["outs"]))


def _params_are(entry: dict[str, Any]) -> bool:
    now = _yaml(Path("params.yaml"))
    return all(now.get(section) == value for section, value in entry["params"]["params.yaml"].items())


def _is_as_recorded(file: dict[str, Any], folders: dict[str, str]) -> bool:
    """Whether a file has the recorded md5; a folder, the one that was recorded when it was made."""
    path = Path(file["path"])
    return path.is_file() and md5(path) == file["md5"] if file["path"] not in folders else folders[file["path"]] == file["md5"]


def _code() -> list[str]:
    stages = _yaml(Path("dvc.yaml")).get("stages", {}).values()
    return sorted({dep for stage in stages for dep in stage["deps"] if dep.startswith(("pipeline/", "vae/"))})


def _yaml(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
