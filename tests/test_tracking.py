"""The MLflow view: one run per experiment, the contract's names, and no power over results."""

from __future__ import annotations

import _thread
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import publish
from pipeline.base.command import command
from pipeline.base.environment import facts
from pipeline.base.errors import InputError, reason
from pipeline.dvc.formats import md5
from pipeline.experiment.records import declared, experiment_digest
from pipeline.params.whole import load_params
from pipeline.stages import evaluate, generate, prepare, train
from pipeline.tracking import store
from pipeline.tracking import view as tracking
from pipeline.tracking.contents import Content, points_of
from pipeline.tracking.run import Run
from tests.clones import on_server
from tests.mlflow_store import Shown
from tests.services import bad_server, proxy
from tests.workspace import ROOT, table, write_params, write_pipeline, write_table

pytestmark = [
    pytest.mark.filterwarnings("default"),  # MLflow uses what SQLAlchemy and others deprecate
    pytest.mark.usefixtures("tracked"),
]

slow = pytest.mark.slow
STAGES = (prepare, train, evaluate, generate)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=slow)])
def shown(request: pytest.FixtureRequest, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The store that the stages write to: the default one, or a server."""
    if request.param == "sqlite":
        return Shown(f"sqlite:///{workspace / 'mlflow.db'}")
    return server(request.getfixturevalue("tracking_uri"), monkeypatch)


def server(uri: str, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """An experiment of the test's own on a server."""
    for name, value in (store := on_server(uri)).items():
        monkeypatch.setenv(name, value)
    return Shown(uri, store["MLFLOW_EXPERIMENT_NAME"])


def lose(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """All that the store holds is lost: what comes now goes to an empty experiment. (MLflow keeps a deleted file open.)"""
    return server(shown.uri, monkeypatch)


def run_all(workspace: Path, **changes: Any) -> None:
    write_table(workspace)
    write_params(workspace, **changes)
    for stage in STAGES:
        stage.main()


def publish_now(*options: str) -> None:
    publish.main(publish.parser().parse_args(options))


def view(workspace: Path, stage: str = "evaluate") -> Any:
    return tracking.stage(stage, declared(), workspace, 1)


def test_one_finished_run_with_the_contracts_names(workspace: Path, shown: Shown) -> None:
    run_all(workspace)
    (run,) = shown.runs()
    assert run.info.status == "FINISHED"
    quantities = {f"{split}/{name}" for split in ("train", "valid", "test") for name in ("elbo", "reconstruction", "kl")}
    quantities |= {f"{split}/{name}" for split in ("train", "valid") for name in ("loss", "bound")}
    expected = quantities | {"learning_rate", "test/log_likelihood", "test/log_likelihood_se"}
    expected |= {"train/gradient_norm", "train/examples_per_second", "valid/active_units"}
    expected |= {"valid/kl_per_dimension/01", "valid/kl_per_dimension/02"}
    expected |= {"test/baseline_gaussian", "test/baseline_mixture", "test/trusted", "test/ladder"}
    expected |= {f"test/{name}{suffix}" for name in ("prior", "importance", "annealed", "bounds") for suffix in ("", "_se")}
    assert expected == set(run.data.metrics)
    assert run.data.tags["verdict"] == "lower bound only"
    assert [step for step, _ in shown.curve(run, "test/ladder")] == [1, 10, 50]
    evaluated = json.loads((workspace / "results/evaluate/metrics.json").read_text())
    assert run.data.metrics["test/log_likelihood"] == evaluated["log_likelihood"]["mean"]
    history = pd.read_csv("results/train/history.csv")
    latents = pd.read_csv("results/train/latents.csv")
    for name, table_, column in (
        ("valid/elbo", history, "valid_elbo"),
        ("train/gradient_norm", history, "train_gradient_norm"),
        ("valid/kl_per_dimension/02", latents, "kl_2"),
    ):
        assert shown.curve(run, name) == list(zip(table_["epoch"], table_[column], strict=True))


def test_params_tags_and_artifacts(workspace: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-otter")
    run_all(workspace)
    (run,) = shown.runs()
    assert run.data.params == {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in load_params().flat().items()
    }
    assert run.info.run_name == "brave-otter" == run.data.tags["dvc.experiment"]
    with monkeypatch.context() as elsewhere:  # its state is in the working directory now, where it has no name
        elsewhere.delenv("DVC_EXP_NAME")
        publish_now()
    assert [run.info.run_name for run in shown.runs()] == ["brave-otter"]
    assert run.data.tags["data.md5"] == md5(workspace / "data/raw/table.csv")
    assert run.data.tags["model.md5"] == md5(workspace / "models/model.safetensors")
    assert run.data.tags["git.dirty"] in ("true", "false")
    assert {"machine.cpu_capability", "machine.packages", "machine.threads", "machine.gpu"} <= set(run.data.tags)
    artifacts = shown.artifacts(run)
    assert {"params.yaml", "dvc.lock", "train/curves.png", "evaluate/metrics.json", "generate/marginals.png"} <= set(artifacts)
    assert artifacts["train/history.csv"] == Path("results/train/history.csv").read_bytes()


def test_running_or_publishing_again_changes_nothing_in_the_store(workspace: Path, shown: Shown) -> None:
    run_all(workspace)
    before = shown.everything()
    run_all(workspace)
    publish_now()
    assert shown.everything() == before
    assert len(shown.runs()) == 1


def test_an_edit_makes_a_new_run_that_carries_the_training_over(workspace: Path, shown: Shown) -> None:
    run_all(workspace)
    write_params(workspace, **{"evaluate.samples": 60})
    evaluate.main()
    old, new = shown.runs()
    assert (old.data.params["evaluate.samples"], new.data.params["evaluate.samples"]) == ("50", "60")
    assert shown.curve(new, "valid/elbo") == shown.curve(old, "valid/elbo")
    assert new.data.tags["model.md5"] == old.data.tags["model.md5"]
    assert new.data.tags["evidence.trained_in"] == old.info.run_id
    assert "evidence.trained_in" not in old.data.tags
    assert new.info.status == old.info.status == "FINISHED"
    write_params(workspace)
    evaluate.main()
    assert len(shown.runs()) == 2


def test_results_of_other_inputs_never_reach_a_run(workspace: Path, shown: Shown) -> None:
    """The metrics of the run before lie on disk; they are not those of the new params."""
    run_all(workspace)
    write_params(workspace, **{"train.learning_rate": 0.01})
    train.main()
    new = shown.runs()[1]
    assert new.info.status == "SCHEDULED"
    assert not any(name.startswith("test/") for name in new.data.metrics)
    evaluate.main()
    generate.main()
    new = shown.runs()[1]
    assert new.info.status == "FINISHED"
    assert new.data.metrics["test/elbo"] != shown.runs()[0].data.metrics["test/elbo"]


def test_a_run_of_other_bytes_is_rebuilt(workspace: Path, shown: Shown) -> None:
    run_all(workspace)
    (run,) = shown.runs()
    shown.client.log_metric(run.info.run_id, "valid/elbo", -1.0, step=1)
    shown.client.set_tag(run.info.run_id, "note", "mine")
    publish_now()
    (new,) = shown.runs()
    assert new.info.run_id != run.info.run_id
    assert new.data.tags["note"] == "mine"
    assert shown.curve(new, "train/examples_per_second") == shown.curve(run, "train/examples_per_second")
    assert [value for _, value in shown.curve(new, "valid/elbo")] == list(
        pd.read_csv("results/train/history.csv")["valid_elbo"]
    )
    assert "train/history.csv" in shown.artifacts(new)
    assert new.info.status == "FINISHED"


@pytest.mark.parametrize("later", [True, pytest.param(False, marks=slow)])
def test_of_two_runs_of_one_experiment_the_first_stays(later: bool, workspace: Path, shown: Shown) -> None:
    """Two machines made them at the same time; whichever comes next completes the first and takes the other away."""
    run_all(workspace)
    (run,) = shown.runs()
    start = run.info.start_time + (1000 if later else -1000)
    tags = {"evidence.digest": run.data.tags["evidence.digest"]}
    other = shown.client.create_run(run.info.experiment_id, start_time=start, tags=tags)
    publish_now()
    (stays,) = shown.runs()
    assert stays.info.run_id == (run if later else other).info.run_id
    assert stays.info.status == "FINISHED"
    assert shown.curve(stays, "valid/elbo") == shown.curve(run, "valid/elbo")


def test_publishing_marks_what_was_abandoned(workspace: Path, shown: Shown) -> None:
    """Killed in training, or ended between two stages; then DVC restores another experiment, and no stage executes."""
    run_all(workspace)
    (run,) = shown.runs()
    for status in ("RUNNING", "SCHEDULED"):
        tags = {"evidence.digest": status, "evidence.process": f"{socket.gethostname()}:99999999:1"}
        left = shown.client.create_run(run.info.experiment_id, tags=tags)
        shown.client.update_run(left.info.run_id, status=status)
    publish_now()
    assert sorted(run.info.status for run in shown.runs()) == ["FINISHED", "KILLED", "KILLED"]


def test_a_lost_store_is_rebuilt_from_the_files(workspace: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(workspace)
    before = shown.comparable()
    shown = lose(shown, monkeypatch)
    publish_now()
    assert shown.comparable() == before


def test_what_was_measured_stays_and_is_in_no_file(workspace: Path, shown: Shown) -> None:
    """The first measurement of an epoch, however often it is computed."""
    run_all(workspace)
    (run,) = shown.runs()
    rates = shown.curve(run, "train/examples_per_second")
    assert [step for step, _ in rates] == [0, 1]
    assert all(rate > 0 for _, rate in rates)
    for stage in STAGES[1:]:
        stage.main()
    publish_now()
    assert [run.info.run_id for run in shown.runs()] == [run.info.run_id]
    assert shown.curve(run, "train/examples_per_second") == rates
    made = [path for name in ("models", "results") for path in Path(name).rglob("*") if path.is_file()]
    assert not any(b"examples_per_second" in path.read_bytes() for path in made)


def test_points_of_a_training_without_latents_and_with_many() -> None:
    """Of an earlier version, and with more of them than curves would show."""
    files = {"results/train/history.csv": b"epoch,valid_elbo,learning_rate\n0,-1.1,0.1\n"}
    known = {("valid/elbo", -1.1, 0), ("learning_rate", 0.1, 0)}
    assert points_of(["train"], files.__getitem__) == known
    for K, curves in ((64, 64), (65, 0)):
        columns = [f"mean_variance_{k + 1}" for k in range(K)]
        files["results/train/latents.csv"] = "\n".join([",".join(["epoch", *columns]), ",".join("0" * (K + 1))]).encode()
        points = points_of(["train"], files.__getitem__) - known
        assert len(points) == curves
        assert curves == 0 or ("valid/mean_variance_per_dimension/64", 0.0, 0) in points


def test_nothing_to_publish_is_an_error(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace)
    with pytest.raises(InputError, match=r"nothing to publish.*run `dvc repro`"):
        publish_now()


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("no memory"), "FAILED"), pytest.param(KeyboardInterrupt(), "KILLED", marks=slow)],
)
def test_a_failing_stage_says_why_and_the_same_run_recovers(
    error: BaseException, status: str, workspace: Path, shown: Shown
) -> None:
    run_all(workspace)

    def fail() -> None:
        with view(workspace):
            raise error

    with pytest.raises(type(error)):
        fail()
    (run,) = shown.runs()
    assert run.info.status == status
    assert run.data.tags["failure.evaluate"].startswith(type(error).__name__)
    evaluate.main()
    (run,) = shown.runs()
    assert run.info.status == "FINISHED"
    assert not any(tag.startswith("failure") for tag in run.data.tags)


def test_a_stage_that_is_interrupted_as_it_is_published_is_killed(
    workspace: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = store.Store.bring

    def interrupted(self: store.Store, content: Content) -> Run:
        _thread.interrupt_main()
        return bring(self, content)

    write_table(workspace)
    write_params(workspace)
    prepare.main()
    monkeypatch.setattr(store.Store, "bring", interrupted)
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is by what a shell runs in the background
    with pytest.raises(KeyboardInterrupt):
        train.main()
    signal.signal(signal.SIGINT, ignored)
    monkeypatch.setattr(store.Store, "bring", bring)
    assert [run.info.status for run in shown.runs()] == ["KILLED"]
    train.main()
    assert [run.info.status for run in shown.runs()] == ["SCHEDULED"]


def test_the_number_of_workers_is_a_tag_and_no_fact_that_bytes_depend_on(
    workspace: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(workspace)
    (run,) = shown.runs()
    assert run.data.tags["machine.workers"] == "1"
    assert not any("workers" in name for name in (*run.data.params, *facts(1)))
    monkeypatch.setenv("EVIDENCE_WORKERS", "2")
    evaluate.main()
    (again,) = shown.runs()
    assert again.data.tags == run.data.tags | {"machine.workers": "2", "evidence.process": again.data.tags["evidence.process"]}


def test_a_failed_preparation_is_shown_and_stays_when_the_inputs_change(workspace: Path, shown: Shown) -> None:
    write_table(workspace, table().astype({"b": object}).replace({"b": {table()["b"][3]: "none"}}))
    write_params(workspace)
    with pytest.raises(InputError):
        prepare.main()
    (run,) = shown.runs()
    assert run.info.status == "FAILED"
    assert "column 'b'" in run.data.tags["failure.prepare"]
    run_all(workspace)
    failed, finished = shown.runs()
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")


def test_points_are_live_while_training(workspace: Path, shown: Shown) -> None:
    write_table(workspace)
    write_params(workspace)
    store.Store(workspace)  # looking at it below, without its lock, would meet its making

    def start() -> None:
        with view(workspace, "train") as live:
            live.log({"epoch": 0, "valid_elbo": -3.0})
            deadline = time.monotonic() + 30
            while not (runs := shown.runs()) or "valid/elbo" not in runs[0].data.metrics:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert (runs[0].info.status, runs[0].data.metrics["valid/elbo"]) == ("RUNNING", -3.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()
    run_all(workspace)  # whose epoch 0 is another: the live point was of other bytes
    (run,) = shown.runs()
    assert run.info.status == "FINISHED"
    assert -3.0 not in [value for _, value in shown.curve(run, "valid/elbo")]


@slow
def test_the_run_of_a_process_that_is_gone_becomes_killed(workspace: Path, shown: Shown) -> None:
    """It was killed while it ran, and other params run now."""
    code = "import sys; from tests.test_tracking import die_in_training; die_in_training()"
    write_table(workspace)
    write_params(workspace)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    (run,) = shown.runs()
    assert run.info.status == "RUNNING"
    run_all(workspace, seed=3)
    assert [run.info.status for run in shown.runs()] == ["KILLED", "FINISHED"]
    run_all(workspace)
    assert [run.info.status for run in shown.runs()] == ["FINISHED", "FINISHED"]


def current_store() -> Shown:
    return Shown(store.tracking_uri(Path.cwd()), os.environ.get("MLFLOW_EXPERIMENT_NAME", "evidence"))


def die_in_training() -> None:
    store.Store(Path.cwd())  # looking at it below, without its lock, would meet its making
    with view(Path.cwd(), "train"):
        deadline = time.monotonic() + 30
        while not current_store().runs():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(1)
        os.kill(os.getpid(), 9)


@pytest.mark.parametrize("kind", ["refuse", *(pytest.param(k, marks=slow) for k in ("drip", "hang", "500", "no folder"))])
def test_a_store_that_is_away_costs_a_warning_and_little_time(
    kind: Any, workspace: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away from start to end; when it is back, publishing completes the run."""
    run_all(workspace)
    files = {path: path.read_bytes() for path in (workspace / "results").rglob("*") if path.is_file()}
    before = shown.comparable()
    shown = lose(shown, monkeypatch)
    capsys.readouterr()
    away = nullcontext("sqlite:////proc/none/mlflow.db") if kind == "no folder" else bad_server(kind)
    with away as uri, monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", uri)
        waited = 0.0
        for stage in STAGES:
            waited += _waiting_time(stage.main, monkeypatch)
        began = time.monotonic()
        with pytest.raises(InputError, match="MLflow's store cannot be had, results are not affected"):
            publish_now()
        waited += time.monotonic() - began
    assert waited < 10
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: MLflow")]
    assert len(warnings) == 3
    assert {path: path.read_bytes() for path in (workspace / "results").rglob("*") if path.is_file()} == files
    publish_now()
    assert shown.comparable() == before


def _waiting_time(main: Any, monkeypatch: pytest.MonkeyPatch) -> float:
    """The seconds that a stage waits for its view, which is all that a store can add to it."""
    seconds = 0.0
    finish = tracking.View._finish

    def timed(self: tracking.View, task: Any) -> None:
        nonlocal seconds
        began = time.monotonic()
        finish(self, task)
        seconds += time.monotonic() - began

    with monkeypatch.context() as patched:
        patched.setattr(tracking.View, "_finish", timed)
        main()
    return seconds


def test_credentials_never_show(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret-word@127.0.0.1:9")
    write_table(workspace)
    write_params(workspace)
    for stage in (prepare, train):
        stage.main()
    monkeypatch.setattr(sys, "argv", ["publish"])
    assert command("publish", publish.parser(), publish.main) == 1
    out, err = capsys.readouterr()
    assert "warning: MLflow does not show this stage" in err
    assert "secret-word" not in out + err
    for path in workspace.rglob("*"):
        assert not path.is_file() or b"secret-word" not in path.read_bytes()
    for uri in ("//me:secret-word@host/db", "//me:secr@et-word@host/db", "//host/db?user=me&password=secret-word"):
        assert "et-word" not in reason(ValueError(f"at postgresql:{uri}"))
    assert reason(ValueError("at postgresql://me:secret-word@host/db")) == "ValueError: at postgresql://***@host/db"


def test_other_processes_of_a_distributed_training_stay_silent(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    write_params(workspace)
    write_table(workspace)
    with view(workspace, "train") as silent:
        silent.log({"epoch": 0, "valid_elbo": -3.0})
    assert not (workspace / "mlflow.db").exists()


@slow
def test_processes_that_first_touch_a_store_together_all_log(workspace: Path, shown: Shown) -> None:
    """Four at once, each with params of its own, on a store that does not exist yet."""
    code = (
        "import sys; from pathlib import Path; from pipeline.tracking import store; from pipeline.experiment import identity;"
        "from pipeline.experiment.records import declared;"
        "from dataclasses import replace; stages = declared(); p = stages['prepare'];"
        "stages['prepare'] = replace(p, params={**p.params, 'seed': int(sys.argv[1])});"
        "e = identity.Experiment(stages); store.Store(Path.cwd()).open(e).start(e, {}, '')"
    )
    write_table(workspace)
    write_params(workspace)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen([sys.executable, "-c", code, str(seed)], env=environment) for seed in range(4)]
    assert [process.wait(120) for process in started] == [0] * 4
    assert len({run.data.tags["evidence.digest"] for run in shown.runs()}) == 4


def test_the_digest_is_that_of_commands_params_data_and_code(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace)
    (workspace / "vae").mkdir()
    (workspace / "vae" / "a.py").write_text("1")
    write_pipeline(workspace, code=["vae/a.py"])
    digests = [experiment_digest(declared())]
    assert experiment_digest(declared()) == digests[0]
    (workspace / "vae" / "a.py").write_text("2")
    digests.append(experiment_digest(declared()))
    write_params(workspace, seed=7)
    digests.append(experiment_digest(declared()))
    (workspace / "data/raw/table.csv").write_text("other")
    digests.append(experiment_digest(declared()))
    (workspace / "dvc.yaml").write_text(
        (workspace / "dvc.yaml").read_text().replace("-m pipeline.train", "-O -m pipeline.train")
    )
    digests.append(experiment_digest(declared()))
    assert len(set(digests)) == 5
    for made in ("data/prepared", "models"):
        (workspace / made).mkdir(exist_ok=True)
        (workspace / made / "model.safetensors").write_text("what a stage makes is not from outside")
    assert experiment_digest(declared()) == digests[-1]


def test_a_server_that_goes_away_in_the_middle_is_completed_later(
    workspace: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It dies after training has begun, hangs in evaluation, and is back for the last stage, which completes the run."""
    shown = server(tracking_uri, monkeypatch)
    with proxy(tracking_uri) as between:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", between.uri)
        write_table(workspace)
        write_params(workspace)
        prepare.main()

        def cut(row: Any) -> None:
            deadline = time.monotonic() + 30
            while not shown.runs():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            between.mode = "refuse"

        with monkeypatch.context() as patched:
            patched.setattr(tracking.View, "log", lambda self, row: cut(row))
            train.main()
        between.mode = "hang"
        evaluate.main()
        between.mode = "pass"
        generate.main()
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: MLflow")]
    assert len(warnings) == 2
    (run,) = shown.runs()
    assert run.info.status == "FINISHED"
    assert [step for step, _ in shown.curve(run, "valid/elbo")] == [0, 1]
