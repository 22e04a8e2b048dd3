"""A run of an older version is shown, restored, summed up and scored by its own files, and never replaced.

``tests/files/run-549099b.zip`` is what the code of commit 549099b left: its files, and its run in MLflow with the artifacts.
Its params.yaml sets an option that there is no more, and leaves options open whose defaults are others now.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc.repo import Repo
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from pipeline import publish, restore, score, summary
from pipeline.base.errors import InputError
from pipeline.experiment.records import load_record
from pipeline.history.verify import verify
from pipeline.params import versions, whole
from pipeline.stages import evaluate, generate, prepare, train
from pipeline.tracking import contents
from pipeline.tracking.contents import points_of
from pipeline.tracking.store import Store
from tests.clones import Repository
from tests.mlflow_store import Shown
from tests.workspace import ROOT, write_params, write_table

pytestmark = pytest.mark.filterwarnings("default")  # MLflow uses what SQLAlchemy and others deprecate

KEPT = ROOT / "tests" / "files" / "run-549099b.zip"
SETTINGS = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """The repository of the older run, and its store; the working directory meanwhile."""
    folder = tmp_path_factory.mktemp("older") / "repository"
    with zipfile.ZipFile(KEPT) as kept:
        kept.extractall(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        lock = (folder / "dvc.lock").read_bytes()
        made = kept_by_dvc(folder)
        assert (folder / "dvc.lock").read_bytes() == lock
        Store(folder)  # makes the database
        show(folder, json.loads((folder / "store/run.json").read_text()))
        yield made


def kept_by_dvc(folder: Path) -> Repository:
    """A repository of what is in a folder, with the outputs in DVC's cache."""
    for name in SETTINGS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    made = Repository(folder)
    made.run("git", "init", "-q")
    with Repo(str(folder)) as repo:
        repo.commit(force=True)
    made.commit("run")
    return made


def show(folder: Path, run: dict[str, Any]) -> None:
    """Make the run as the store had it."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("evidence")
    assert experiment is not None
    made = client.create_run(experiment.experiment_id, run["start_time"], run_name=run["name"]).info.run_id
    params = [Param(name, value) for name, value in run["params"].items()]
    tags = [RunTag(name, value) for name, value in run["tags"].items()]
    client.log_batch(made, [Metric(*point) for point in run["metrics"]], params, tags)
    client.log_artifacts(made, str(folder / "store/artifacts"))
    client.set_terminated(made, run["status"])


def publish_now(*options: str) -> None:
    publish.main(publish.parser().parse_args(options))


def rebuilt(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What an empty store shows of all states."""
    uri = f"sqlite:///{repository.folder / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    publish_now("--all")
    return Shown(uri)


@pytest.mark.usefixtures("tracked")
def test_it_stays_in_the_store_as_it_is(older: Repository) -> None:
    ids, before = [run.info.run_id for run in older.runs()], older.shown().comparable()
    publish_now("--all")
    publish_now()
    assert [run.info.run_id for run in older.runs()] == ids
    assert older.shown().comparable() == before


@pytest.mark.usefixtures("tracked")
def test_a_lost_store_is_rebuilt_in_its_terms(older: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    before = older.shown().comparable()
    shown = rebuilt(older, monkeypatch)
    assert shown.comparable() == before
    (run,) = shown.runs()
    assert run.data.params["evaluate.annealing.temperatures"] == "200"
    assert run.data.params["evaluate.annealing.check_examples"] == "5"
    assert "evaluate.tolerance" not in run.data.params


def test_it_is_restored(older: Repository, tmp_path: Path) -> None:
    (run,) = older.runs()
    restore.main(restore.parser().parse_args([run.info.run_id, "--into", str(tmp_path / "restored")]))
    made = {name: body for name, body in older.outputs().items() if not name.endswith(".gitignore")}
    assert {name: (tmp_path / "restored" / name).read_bytes() for name in made} == made
    with Repo(str(tmp_path / "restored")) as repo:
        assert repo.status() == {}


def test_metrics_that_only_its_version_shows_do_not_differ(older: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate_again(folder: Path) -> None:
        shutil.copytree(folder / ".evidence/restored", folder / "results/evaluate")

    monkeypatch.setattr("pipeline.history.verify.evaluate", evaluate_again)
    points = points_of(("train", "evaluate"), lambda path: (older.folder / path).read_bytes())
    shown = frozenset(point for point in points if point[0] != "test/kl") | {("test/of_old", 1.0, 0)}
    assert f"all {len(points) - 1} of its MLflow run" in verify(older.folder, shown)
    with pytest.raises(InputError, match=r"1 of \d+ metrics differ from those of the run:\n  MLflow's test/elbo at step 0"):
        verify(older.folder, frozenset((name, value + (name == "test/elbo"), step) for name, value, step in shown))


def test_it_is_summed_up_and_scored(older: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads((older.folder / "results/evaluate/metrics.json").read_text())
    summary.main()
    said = " ".join(capsys.readouterr().out.split())
    assert "9 test rows of data/raw/table.csv" in said
    assert f"the VAE's log-likelihood {metrics['verdict']['statement']}" in said
    options = ["--out", str(tmp_path / "scores.csv"), "--samples", "20", "--threads", "1"]
    score.main(score.parser().parse_args(["data/raw/table.csv", *options]))
    assert "scored 60 rows" in capsys.readouterr().out


def later_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `evaluate` have an option more and another default, and a metric be shown no more."""
    check, points = whole.check_params, contents._POINTS["evaluate"]

    def check_params(content: Any) -> SimpleNamespace:
        flat = check(content).flat() | {"evaluate.effort": 3, "evaluate.annealing.extra": 1.0}
        return SimpleNamespace(flat=lambda: flat)

    monkeypatch.setattr(versions, "check_params", check_params)
    monkeypatch.setitem(contents._POINTS, "evaluate", lambda read: [point for point in points(read) if point[0] != "test/kl"])


@pytest.mark.usefixtures("tracked")
def test_a_new_option_or_default_or_metric_replaces_no_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it said of a run that was made without, where the store is lost."""
    write_table(workspace)
    write_params(workspace)
    for stage in (prepare, train, evaluate, generate):
        stage.main()
    made = kept_by_dvc(workspace)
    publish_now()
    ids, before = [run.info.run_id for run in made.runs()], made.shown().comparable()
    later_version(monkeypatch)
    publish_now("--all")
    assert [run.info.run_id for run in made.runs()] == ids
    assert made.shown().comparable() == before
    (run,) = rebuilt(made, monkeypatch).runs()
    assert run.data.params == made.runs()[0].data.params


def test_a_record_says_how_its_stage_read_its_own_sections(workspace: Path) -> None:
    """And of no other, whose edits do not concern it."""
    write_table(workspace)
    write_params(workspace, **{"data.columns": {"a": "continuous"}})
    prepare.main()
    record = load_record("prepare")
    assert record is not None
    assert record.read_as.keys() == {"seed", "data"} == record.params.keys()
    assert record.params["data"]["columns"] == {"a": "continuous"}
    assert record.read_as["data"]["columns"]["a"]["kind"] == "continuous"
    assert record.read_as["data"]["header"] is True
