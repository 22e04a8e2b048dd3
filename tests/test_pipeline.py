"""The whole experiment through DVC, in a clone in a temporary folder, with tiny settings."""

from __future__ import annotations

import json
import time

import pytest

from tests.clones import Clone


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
