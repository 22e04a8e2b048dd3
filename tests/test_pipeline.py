"""The whole experiment through DVC, in a clone in a temporary folder, with tiny settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from tests.workspace import ROOT, write_params

DIGITS = {"data.path": "data/raw/digits.csv", "data.exclude": ["label"], "data.shape": [8, 8], "data.dequantize": 1}
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.org"]


class Clone:
    """A clone of this working tree, with everything committed, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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

    def run(self, *command: str, expect: int = 0) -> str:
        """Standard output and error of a command."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", *IDENTITY, "commit", "-qm", message)

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

    def runs(self) -> list[Run]:
        client = MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("evidence")
        return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    def outputs(self) -> dict[str, bytes]:
        folders = [self.folder / name for name in ("data/prepared", "models", "results")]
        return {str(p.relative_to(self.folder)): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = Clone(tmp_path_factory.mktemp("clone"))
    assert made.repro() == ["prepare", "train", "evaluate", "generate"]
    made.commit("first run")
    return made


@pytest.mark.filterwarnings("default")
def test_the_experiment_runs_and_reruns_what_an_edit_affects(clone: Clone) -> None:
    assert clone.repro() == []
    assert clone.run("git", "status", "--porcelain") == ""
    (first,) = clone.runs()
    assert first.info.status == "FINISHED"
    commit = clone.run("git", "rev-parse", "HEAD~1").strip()
    assert first.data.tags["mlflow.source.git.commit"] == commit
    assert first.data.tags["git.dirty"] == "false"

    clone.set("evaluate.samples", 70)
    assert clone.repro() == ["evaluate"]
    assert (
        json.loads((clone.folder / "results/evaluate/metrics.json").read_text())["estimators"]["importance"]["samples"] == 70
    )
    second = clone.runs()[1]
    assert second.info.status == "FINISHED"
    assert second.data.params["evaluate.samples"] == "70"
    assert set(second.data.metrics) == set(first.data.metrics)
    assert "estimators.importance.mean" in clone.run("dvc", "metrics", "diff")

    clone.set("train.learning_rate", 0.002)
    assert clone.repro() == ["train", "evaluate", "generate"]
    assert len(clone.runs()) == 3
    assert "file://" in clone.run("dvc", "plots", "diff")

    networks = clone.folder / "vae" / "networks.py"
    networks.write_text(networks.read_text() + "# a comment\n")
    assert clone.repro("--dry") == ["train", "evaluate", "generate"]
    clone.run("git", "checkout", "vae")

    outputs = clone.outputs()
    clone.set("train.learning_rate", "fast")
    message = clone.run("dvc", "repro", expect=255)
    assert "train.learning_rate: input should be a valid number; got 'fast'" in message
    left = clone.outputs()
    assert all(outputs[name] == content for name, content in left.items())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_queued_experiments_run_in_parallel_into_the_main_store(clone: Clone) -> None:
    clone.run("git", "checkout", "-q", "params.yaml", "dvc.lock", "results")
    before = len(clone.runs())
    clone.run("dvc", "exp", "run", "-S", "model.latent_dim=3,4", "--queue")
    clone.run("dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 400
    while "Running" in (status := clone.run("dvc", "queue", "status")) or "Queued" in status:
        assert time.monotonic() < deadline, status
        time.sleep(3)
    assert "Failed" not in status, status
    new = clone.runs()[before:]
    assert sorted(run.data.params["model.latent_dim"] for run in new) == ["3", "4"]
    assert {run.info.status for run in new} == {"FINISHED"}
    assert all(run.info.run_name == run.data.tags["dvc.experiment"] != "" for run in new)
    clone.run("dvc", "queue", "stop")
    shown = clone.run("dvc", "exp", "show", "--csv")
    assert all(run.info.run_name in shown for run in new)
