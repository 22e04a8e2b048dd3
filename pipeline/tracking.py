"""The MLflow view: one run per experiment, live while a stage runs, and brought to what the tracked files say when it ends.

MLflow never affects results: what fails here is reported once and then left alone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast

import pandas as pd
import pytorch_lightning as pl
from filelock import FileLock
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from pipeline.experiment import describe, is_current, main_repository
from pipeline.files import MODELS, RESULTS, md5
from pipeline.params import PARAMS_FILE, Params

EXPERIMENT = "evidence"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # how the UI shows it: as training runs
DIGEST_TAG = "evidence.digest"
FAILURE_TAG = "failure."
UPSTREAM = {"train": ("train",), "evaluate": ("train", "evaluate"), "generate": ("train", "generate")}
ARTIFACT_SUFFIXES = {".json", ".csv", ".parquet", ".png"}
LARGEST_ARTIFACT = 5 * 2**20  # bytes; larger tables stay where DVC keeps them
POINTS_PER_CALL = 1000

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
}.items():
    os.environ.setdefault(_name, _value)

P = ParamSpec("P")


def _harmless(method: Callable[Concatenate[View, P], None]) -> Callable[Concatenate[View, P], None]:
    """Turn the first error of a view's method into a warning, and all later calls into nothing."""

    @wraps(method)
    def wrapper(self: View, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.off:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.off = True
            print(
                f"warning: MLflow tracking is off for this stage, results are not affected: {_short(error)}", file=sys.stderr
            )

    return cast("Callable[Concatenate[View, P], None]", wrapper)


class View:
    """The MLflow run of the experiment in the working directory.

    Args:
        params: The experiment's params.
        off: Log nothing, as in the processes beside the first one.
    """

    def __init__(self, params: Params, *, off: bool = False) -> None:
        self.params, self.off = params, off

    @_harmless
    def open(self) -> None:
        """Find the run of this experiment, or create it, and mark it as running."""
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        experiment = describe(self.params)
        root = main_repository()
        (root / ".evidence").mkdir(exist_ok=True)
        with FileLock(root / ".evidence" / "store.lock"):  # processes that first touch a store together would crash
            self._client = MlflowClient(tracking_uri(root))
            self._experiment_id = self._find_or_create_experiment(root)
            run = self._find_run(experiment.digest) or self._client.create_run(
                self._experiment_id, tags={DIGEST_TAG: experiment.digest}
            )
        self._run_id, self._start = run.info.run_id, run.info.start_time
        self._failures = {tag for tag in run.data.tags if tag.startswith(FAILURE_TAG)}
        self._client.update_run(self._run_id, status="RUNNING", name=experiment.name)
        self._tag(experiment.tags)
        if not run.data.params:
            self._log_params()

    @_harmless
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values at a step. Its time is a function of the step (a second each), so logging it again changes nothing."""
        self._points([(name, value, step) for name, value in metrics.items()])

    @_harmless
    def publish(self, stage: str) -> None:
        """Bring the run to what the files say: those of ``stage``, of the stages before it, and of others that are current."""
        for name in UPSTREAM:
            if name in UPSTREAM[stage] or is_current(name):
                self._publish_stage(name)
        if (own := FAILURE_TAG + stage) in self._failures:
            self._client.delete_tag(self._run_id, own)
        self._client.set_terminated(self._run_id, "FAILED" if self._failures - {own} else "FINISHED")

    @_harmless
    def fail(self, stage: str, error: BaseException) -> None:
        """Mark the run as failed (killed, if the user interrupted it), with the reason."""
        self._tag({FAILURE_TAG + stage: _short(error)})
        self._client.set_terminated(self._run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _find_or_create_experiment(self, root: Path) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        location = (root / "mlartifacts").as_uri() if tracking_uri(root).startswith("sqlite:") else None
        return self._client.create_experiment(EXPERIMENT, artifact_location=location, tags=EXPERIMENT_TAGS)

    def _find_run(self, digest: str) -> Any:
        query = f"tags.`{DIGEST_TAG}` = '{digest}'"
        runs = self._client.search_runs([self._experiment_id], query, order_by=["attributes.start_time ASC"], max_results=1)
        return runs[0] if runs else None

    def _log_params(self) -> None:
        from mlflow.entities import Param

        values = {name: v if isinstance(v, str) else json.dumps(v) for name, v in self.params.flat().items()}
        self._client.log_batch(self._run_id, params=[Param(name, value) for name, value in values.items()])
        self._client.log_artifact(self._run_id, str(PARAMS_FILE))

    def _publish_stage(self, stage: str) -> None:
        folder = RESULTS / stage
        self._points(_POINTS[stage](folder))
        for path in sorted(folder.glob("*")):
            if path.suffix in ARTIFACT_SUFFIXES and path.stat().st_size <= LARGEST_ARTIFACT:
                self._client.log_artifact(self._run_id, str(path), stage)
        self._tag(_TAGS[stage](folder))

    def _points(self, points: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, float(value), self._start + 1000 * step, step) for name, value, step in points]
        for first in range(0, len(metrics), POINTS_PER_CALL):
            self._client.log_batch(self._run_id, metrics=metrics[first : first + POINTS_PER_CALL])

    def _tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in tags.items() if value])


class LiveCurves(Callback):
    """Logs each epoch to a view as it ends."""

    def __init__(self, view: View) -> None:
        self._view = view

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self._view.log({**metrics, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}, trainer.current_epoch)


@contextmanager
def stage(name: str, params: Params) -> Iterator[View]:
    """Show a stage in MLflow: running, then finished with all that its files say, or failed with the reason."""
    view = View(params, off=os.environ.get("LOCAL_RANK", "0") != "0")
    view.open()
    try:
        yield view
    except BaseException as error:
        view.fail(name, error)
        raise
    view.publish(name)


def tracking_uri(root: Path) -> str:
    """Where runs go: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the main repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def _train_points(folder: Path) -> list[tuple[str, float, int]]:
    history = pd.read_csv(folder / "history.csv")
    columns = [name for name in history.columns if name != "epoch"]
    return [
        (_metric_name(c), value, int(epoch))
        for c in columns
        for epoch, value in zip(history["epoch"], history[c], strict=True)
    ]


def _metric_name(column: str) -> str:
    split, _, quantity = column.partition("_")
    return f"{split}/{quantity}" if split in ("train", "valid") else column


def _test_points(folder: Path) -> list[tuple[str, float, int]]:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    values = {f"test/{name}": metrics[name] for name in ("elbo", "reconstruction", "kl", "bits_per_dimension")}
    values["test/log_likelihood"] = metrics["log_likelihood"]["mean"]
    values["test/log_likelihood_se"] = metrics["log_likelihood"]["standard_error"]
    values["test/log_likelihood_monte_carlo_error"] = metrics["log_likelihood"]["monte_carlo_error"]
    values["test/trusted"] = float(metrics["verdict"]["trusted"])
    for name, entry in metrics["estimators"].items():
        values[f"test/{name}"] = entry["mean"]
        values[f"test/{name}_se"] = entry["standard_error"]
    for name, baseline in metrics["baselines"].items():
        values[f"test/baseline_{name}"] = baseline["mean"]
    ladder = pd.read_csv(folder / "ladder.csv")
    rungs = [("test/ladder", mean, int(s)) for s, mean in zip(ladder["samples"], ladder["mean"], strict=True)]
    return [(name, value, 0) for name, value in values.items() if value is not None] + rungs


_POINTS: dict[str, Callable[[Path], list[tuple[str, float, int]]]] = {
    "train": _train_points,
    "evaluate": _test_points,
    "generate": lambda folder: [],
}


def _verdict(folder: Path) -> dict[str, str]:
    return {"verdict": json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["verdict"]["statement"]}


_TAGS: dict[str, Callable[[Path], dict[str, str]]] = {
    "train": lambda folder: {"model.md5": md5(MODELS / "model.safetensors")},
    "evaluate": _verdict,
    "generate": lambda folder: {},
}


def _short(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
