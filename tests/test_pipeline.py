"""The whole experiment through DVC, in a clone in a temporary folder, with tiny settings."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.clones import Repository, finished, on_server
from tests.mlflow_store import MEASURED


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def clone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """With a store of its own in a file, or on a server."""
    store = {} if request.param == "sqlite" else on_server(request.getfixturevalue("tracking_uri"))
    return finished(tmp_path_factory.mktemp("clone") / "clone", tmp_path_factory, **store)


@pytest.mark.filterwarnings("default")
def test_the_experiment_runs_and_reruns_what_an_edit_affects(clone: Repository) -> None:
    assert clone.repro() == []
    assert clone.run("git", "status", "--porcelain") == ""
    (first,) = clone.runs()
    assert first.info.status == "FINISHED"
    commit = clone.run("git", "rev-parse", "HEAD").strip()
    assert first.data.tags["mlflow.source.git.commit"] == commit
    assert first.data.tags["git.dirty"] == "false"

    _edit_evaluation(clone, first)
    clone.set("train.learning_rate", 0.002)
    assert clone.repro() == ["train", "evaluate", "generate"]
    assert len(clone.runs()) == 3
    assert "file://" in clone.run("dvc", "plots", "diff")
    _go_back(clone)
    _lose_and_rebuild(clone)
    _edit_code(clone)
    _refuse_bad_params(clone)


def _edit_evaluation(clone: Repository, first: Any) -> None:
    """Evaluation alone runs again, and another run shows it."""
    clone.set("evaluate.samples", 70)
    assert clone.repro() == ["evaluate"]
    metrics = json.loads((clone.folder / "results/evaluate/metrics.json").read_text())
    assert metrics["estimators"]["importance"]["samples"] == 70
    second = clone.runs()[1]
    assert second.info.status == "FINISHED"
    assert second.data.params["evaluate.samples"] == "70"
    assert set(second.data.metrics) == set(first.data.metrics)
    assert "estimators.importance.mean" in clone.run("dvc", "metrics", "diff")


def _go_back(clone: Repository) -> None:
    """To what is committed: nothing runs, and no run is added."""
    clone.run("git", "checkout", "params.yaml")
    assert clone.repro() == [], "DVC restores all from its run-cache"
    assert "complete" in clone.publish()
    assert [run.info.status for run in clone.runs()] == ["FINISHED"] * 3
    assert clone.run("git", "status", "--porcelain") == ""
    assert not any((clone.folder / ".evidence/saved").iterdir())


def _edit_code(clone: Repository) -> None:
    """Two edits that ran one after the other are put together from the run-cache; code that a stage imports runs it again."""
    clone.set("train.learning_rate", 0.002)
    clone.set("evaluate.samples", 70)
    assert clone.repro() == []
    networks = clone.folder / "vae" / "model" / "networks.py"
    networks.write_text(networks.read_text() + "# a comment\n")
    assert clone.repro("--dry") == ["train", "evaluate", "generate"]
    clone.run("git", "checkout", "vae")


def _refuse_bad_params(clone: Repository) -> None:
    """With the message, and nothing lost."""
    outputs = clone.outputs()
    clone.set("train.learning_rate", "fast")
    message = clone.run("dvc", "repro", expect=255)
    assert "train.learning_rate: input should be a valid number; got 'fast'" in message
    left = clone.outputs()
    assert all(outputs[name] == content for name, content in left.items())


def _lose_and_rebuild(clone: Repository) -> None:
    """The store is lost; of every state that git or the run-cache holds there is the run as before."""
    before = clone.shown().comparable()
    clone.lose_store()
    said = clone.publish("--all")
    after = clone.shown().comparable()
    assert after.keys() == before.keys()
    assert after == before
    assert f"MLflow shows {len(before) - 1} experiments" in said


def _curves(run: Any) -> dict[str, Any]:
    """Without what was measured, which a run that was rebuilt gets only when it is trained again."""
    return {name: curve for name, curve in run[5].items() if name not in MEASURED}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_state_is_rebuilt(clone: Repository) -> None:
    """Experiments in the workspace and in a temporary folder, a branch, states that only the run-cache holds, and -f twice."""
    clone.run("git", "checkout", "-q", "params.yaml", "dvc.lock", "results")
    clone.run("dvc", "checkout", "-q")
    clone.run("dvc", "exp", "run", "-S", "evaluate.samples=90", "-n", "brave-otter")
    clone.run("git", "checkout", "-q", "params.yaml", "dvc.lock", "results")
    clone.run("dvc", "exp", "run", "--temp", "-S", "generate.samples=30", "-n", "calm-heron")
    clone.run("git", "checkout", "-q", "-b", "side")
    clone.set("evaluate.samples", 110)
    clone.repro()
    clone.commit("on a branch")
    clone.set("seed", 5)
    clone.repro()
    clone.set("generate.samples", 40)
    assert clone.repro() == ["generate"]
    names = {run.info.run_name for run in clone.runs()}
    assert {"brave-otter", "calm-heron"} <= names
    _lose_and_rebuild(clone)
    for _ in range(2):
        before = clone.shown().everything()
        clone.run("git", "add", "-A")
        clone.run("dvc", "repro", "-f")
        assert clone.run("git", "diff", "--stat") == ""
        clone.publish()
        assert clone.shown().comparable().keys() == {run[4]["evidence.digest"] for run in before}
        assert [_curves(run) for run in clone.shown().everything()] == [_curves(run) for run in before]
    clone.run("git", "checkout", "-qf", "master")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_queued_experiments_run_in_parallel_into_the_main_store(clone: Repository) -> None:
    """Four at once, on a store that is not there yet."""
    clone.run("git", "checkout", "-q", "params.yaml", "dvc.lock", "results")
    clone.lose_store()
    clone.run("dvc", "exp", "run", "-S", "model.latent_dim=3,4", "-S", "generate.samples=21,22", "--queue")
    clone.run("dvc", "queue", "start", "-j", "4")
    deadline = time.monotonic() + 400
    while "Running" in (status := clone.run("dvc", "queue", "status")) or "Queued" in status:
        assert time.monotonic() < deadline, status
        time.sleep(3)
    assert "Failed" not in status, status
    new = clone.runs()
    assert sorted(run.data.params["model.latent_dim"] for run in new) == ["3", "3", "4", "4"]
    assert {run.info.status for run in new} == {"FINISHED"}
    assert all(run.info.run_name == run.data.tags["dvc.experiment"] != "" for run in new)
    clone.run("dvc", "queue", "stop", "--kill")
    shown = clone.run("dvc", "exp", "show", "--csv")
    assert all(run.info.run_name in shown for run in new)
