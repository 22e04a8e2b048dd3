"""A clone of this repository with tiny settings, in which the experiment is run, and clones of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow.entities import Run
from ruamel.yaml import YAML

from tests.mlflow_store import Shown
from tests.workspace import ROOT, write_params

DIGITS = {"data.path": "data/raw/digits.csv", "data.exclude": ["label"], "data.shape": [8, 8], "data.dequantize": 1}
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.org"]


class Repository:
    """A folder with git and DVC, and commands run in it, which are given more of an environment."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.environment = folder, environment

    def run(self, *command: str, expect: int = 0, **environment: str) -> str:
        """Standard output and error of a command, which is given more of an environment."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {**os.environ, "PATH": path, "EVIDENCE_TRACKING": "on"} | self.environment | environment
        with tempfile.TemporaryFile("w+") as output:  # not a pipe, which a worker that goes on in the background holds open
            done = subprocess.run(command, cwd=self.folder, stdout=output, stderr=output, check=False, env=given)
            output.seek(0)
            said = output.read()
        assert done.returncode == expect, said
        return said

    def commit(self, message: str) -> str:
        """The new commit, of everything."""
        self.run("git", "add", "-A")
        self.run("git", *IDENTITY, "commit", "-qm", message)
        return self.run("git", "rev-parse", "HEAD").strip()

    def clone(self, folder: Path) -> Repository:
        """A colleague's: what git knows, and nothing of DVC's cache."""
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return Repository(folder)

    def repro(self, *options: str) -> list[str]:
        """The stages that ran, or with ``--dry`` would run."""
        output = self.run("dvc", "repro", *options)
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]

    def set(self, path: str, value: Any) -> None:
        yaml = YAML()
        content = yaml.load((self.folder / "params.yaml").read_text())
        section, (*steps, last) = content, path.split(".")
        for step in steps:
            section = section[step]
        section[last] = value
        with (self.folder / "params.yaml").open("w") as file:
            yaml.dump(content, file)

    def shown(self) -> Shown:
        """What MLflow shows now; of a copy of a file, as MLflow keeps a database open though it is deleted."""
        if "MLFLOW_TRACKING_URI" in self.environment:
            return Shown(self.environment["MLFLOW_TRACKING_URI"], self.environment["MLFLOW_EXPERIMENT_NAME"])
        copy = self.folder.with_name(f"{uuid.uuid4().hex}.db")
        shutil.copy(self.folder / "mlflow.db", copy)
        return Shown(f"sqlite:///{copy}")

    def runs(self) -> list[Run]:
        return self.shown().runs()

    def lose_store(self) -> None:
        """All that MLflow shows is lost."""
        (self.folder / "mlflow.db").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "mlartifacts", ignore_errors=True)
        if "MLFLOW_TRACKING_URI" in self.environment:
            self.environment |= on_server(self.environment["MLFLOW_TRACKING_URI"])

    def publish(self, *options: str) -> str:
        """What `make publish` says."""
        return self.run("python", "-m", "pipeline.publish", *options)

    def outputs(self) -> dict[str, bytes]:
        folders = [self.folder / name for name in ("data/prepared", "models", "results")]
        return {str(p.relative_to(self.folder)): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


class Clone(Repository):
    """This working tree with everything committed, and tiny settings."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in listed:
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        write_params(folder, **DIGITS)
        self.run("git", "init", "-q")
        self.commit("start")

    def run_all(self, **environment: str) -> None:
        """All stages in one process, which is faster, without DVC, which is told of their outputs afterwards."""
        stages = "prepare, train, evaluate, generate"
        self.run("python", "-c", f"from pipeline.stages import {stages}\nfor stage in ({stages}): stage.main()", **environment)
        self.run("dvc", "commit", "--force")


def on_server(uri: str) -> dict[str, str]:
    """What leads to an empty store: an experiment of its own on a tracking server."""
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": uuid.uuid4().hex}


def first_run(factory: pytest.TempPathFactory) -> Path:
    """A clone in which the experiment has run, unseen by MLflow, and is committed: made once, for all processes that test."""
    worker = "PYTEST_XDIST_WORKER" in os.environ
    shared = factory.getbasetemp().parent if worker else factory.getbasetemp()
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished").exists():
            made = Clone(shared / "unfinished")
            made.run_all(EVIDENCE_TRACKING="off")
            made.commit("first run")
            os.replace(made.folder, shared / "finished")
    return shared / "finished"


def finished(folder: Path, factory: pytest.TempPathFactory, **environment: str) -> Repository:
    """A copy of the first run, shown in an MLflow store of its own, whose paths would be those of another folder."""
    copy = Repository(Path(shutil.copytree(first_run(factory), folder, symlinks=True)), **environment)
    copy.publish()
    return copy
