"""The MLflow view: one run per experiment, the contract's names, and no power over results."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline import evaluate, experiment, generate, prepare, tracking, train
from pipeline.files import md5
from pipeline.params import load_params
from tests.workspace import write_params, write_table

pytestmark = pytest.mark.filterwarnings("default")  # MLflow uses what SQLAlchemy and others deprecate

STAGES = (prepare, train, evaluate, generate)
DVC_YAML = "stages:\n  train:\n    cmd: x\n    deps: []\n"


def run_all(workspace: Path, **changes: Any) -> None:
    write_table(workspace)
    write_params(workspace, **changes)
    (workspace / "dvc.yaml").write_text(DVC_YAML)
    for stage in STAGES:
        stage.main()


def client(workspace: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")


def runs(workspace: Path) -> list[Run]:
    store = client(workspace)
    found = store.get_experiment_by_name("evidence")
    return list(store.search_runs([found.experiment_id])) if found else []


def points(workspace: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(workspace / "mlflow.db") as connection:
        return sorted(connection.execute("select key, value, step from metrics"))


def test_one_finished_run_with_the_contracts_names(workspace: Path) -> None:
    run_all(workspace)
    (run,) = runs(workspace)
    assert run.info.status == "FINISHED"
    quantities = {f"{split}/{name}" for split in ("train", "valid", "test") for name in ("elbo", "reconstruction", "kl")}
    expected = quantities | {"learning_rate", "test/log_likelihood", "test/log_likelihood_se"}
    expected |= {"test/baseline_gaussian", "test/baseline_mixture", "test/trusted", "test/ladder"}
    expected |= {f"test/{name}{suffix}" for name in ("prior", "importance", "annealed", "bounds") for suffix in ("", "_se")}
    assert expected == set(run.data.metrics)
    assert run.data.tags["verdict"] == "lower bound only"
    ladder = client(workspace).get_metric_history(run.info.run_id, "test/ladder")
    assert [point.step for point in ladder] == [1, 10, 50]
    evaluated = json.loads((workspace / "results/evaluate/metrics.json").read_text())
    assert run.data.metrics["test/log_likelihood"] == evaluated["log_likelihood"]["mean"]
    history = client(workspace).get_metric_history(run.info.run_id, "valid/elbo")
    assert [point.value for point in history] == list(pd.read_csv("results/train/history.csv")["valid_elbo"])
    assert [point.step for point in history] == [0, 1]


def test_params_tags_and_artifacts(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-otter")
    run_all(workspace)
    (run,) = runs(workspace)
    assert run.data.params == {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in load_params().flat().items()
    }
    assert run.info.run_name == "brave-otter" == run.data.tags["dvc.experiment"]
    assert run.data.tags["data.md5"] == md5(workspace / "data/raw/table.csv")
    assert run.data.tags["model.md5"] == md5(workspace / "models/model.safetensors")
    assert run.data.tags["git.dirty"] in ("true", "false")
    store = client(workspace)
    artifacts = {
        a.path for folder in (None, "train", "evaluate", "generate") for a in store.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "params.yaml",
        "train/curves.png",
        "train/history.csv",
        "evaluate/metrics.json",
        "generate/marginals.png",
    } <= artifacts
    assert (workspace / "mlartifacts").is_dir()


def test_running_again_changes_nothing_in_the_store(workspace: Path) -> None:
    run_all(workspace)
    before = points(workspace)
    run_all(workspace)
    assert len(runs(workspace)) == 1
    assert points(workspace) == before


def test_an_edit_makes_a_new_run_that_carries_the_training_over(workspace: Path) -> None:
    run_all(workspace)
    write_params(workspace, **{"evaluate.samples": 60})
    evaluate.main()
    new, old = runs(workspace)
    assert (old.data.params["evaluate.samples"], new.data.params["evaluate.samples"]) == ("50", "60")
    assert new.data.metrics["valid/elbo"] == old.data.metrics["valid/elbo"]
    assert new.data.tags["model.md5"] == old.data.tags["model.md5"]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("no memory"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_failing_stage_says_why_and_the_same_run_recovers(error: BaseException, status: str, workspace: Path) -> None:
    run_all(workspace)

    def fail() -> None:
        with tracking.stage("evaluate", load_params()):
            raise error

    with pytest.raises(type(error)):
        fail()
    (run,) = runs(workspace)
    assert run.info.status == status
    assert run.data.tags["failure.evaluate"].startswith(type(error).__name__)
    generate.main()
    (run,) = runs(workspace)
    assert run.info.status == "FAILED"  # a later stage does not hide it
    evaluate.main()
    (run,) = runs(workspace)
    assert run.info.status == "FINISHED"
    assert not any(tag.startswith("failure") for tag in run.data.tags)


def test_points_are_live_while_training(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace)
    (workspace / "dvc.yaml").write_text(DVC_YAML)
    with tracking.stage("train", load_params()) as view:
        view.log({"valid/elbo": -3.0}, 0)
        (run,) = runs(workspace)
        assert (run.info.status, run.data.metrics["valid/elbo"]) == ("RUNNING", -3.0)
        view.off = True


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/none/mlflow.db"])
def test_a_store_that_fails_costs_a_warning_and_nothing_else(
    uri: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(workspace)
    expected = {path: path.read_bytes() for path in (workspace / "results").rglob("*") if path.is_file()}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    capsys.readouterr()
    run_all(workspace)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "MLflow tracking is off" in line]
    assert len(warnings) == 3
    assert {path: path.read_bytes() for path in (workspace / "results").rglob("*") if path.is_file()} == expected


def test_other_processes_of_a_distributed_training_stay_silent(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with tracking.stage("train", load_params(Path(__file__).parent.parent / "params.yaml")) as view:
        assert view.off
    assert not (workspace / "mlflow.db").exists()


def test_processes_that_first_touch_a_store_together_all_log(workspace: Path) -> None:
    """Four at once, each with params of its own, on a store that does not exist yet."""
    code = (
        "import sys; from pipeline import tracking; from pipeline.params import load_params;"
        "view = tracking.View(load_params().model_copy(update={'seed': int(sys.argv[1])})); view.open(); sys.exit(view.off)"
    )
    write_table(workspace)
    write_params(workspace)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    started = [subprocess.Popen([sys.executable, "-c", code, str(seed)], env=environment) for seed in range(4)]
    assert [process.wait(120) for process in started] == [0] * 4
    assert sorted(run.data.params["seed"] for run in runs(workspace)) == ["0", "1", "2", "3"]


def test_the_digest_is_that_of_params_data_and_code(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace)
    (workspace / "vae").mkdir()
    (workspace / "vae" / "a.py").write_text("1")
    (workspace / "dvc.yaml").write_text("stages:\n  train:\n    cmd: x\n    deps: [vae/a.py, models/m]\n")
    digests = [experiment.describe(load_params()).digest]
    assert experiment.describe(load_params()).digest == digests[0]
    (workspace / "vae" / "a.py").write_text("2")
    digests.append(experiment.describe(load_params()).digest)
    write_params(workspace, seed=7)
    digests.append(experiment.describe(load_params()).digest)
    (workspace / "data/raw/table.csv").write_text("other")
    digests.append(experiment.describe(load_params()).digest)
    assert len(set(digests)) == 4
