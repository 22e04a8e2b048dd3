"""The MLflow store: one run per experiment, found or made, and brought to what a `Content` says. All of it may be repeated."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.base.processes import is_gone
from pipeline.experiment.identity import Experiment
from pipeline.tracking.contents import TRAINED, Content
from pipeline.tracking.run import ARTIFACTS, PATCH, Run
from pipeline.tracking.watch import Watched

EXPERIMENT = "evidence"  # MLFLOW_EXPERIMENT_NAME names another
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # how the UI shows it: as training runs
DIGEST = "evidence.digest"
PROCESS = "evidence.process"
TRAINED_IN = "evidence.trained_in"  # the first run with this training
CALL_SECONDS, PATIENT_SECONDS = 3.0, 60.0  # what a server, and a database on this machine, may take to answer

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{CALL_SECONDS:.0f}",
}.items():
    os.environ.setdefault(_name, _value)


class Store:
    """Runs of the project's MLflow experiment.

    Args:
        root: The main repository, where the default store lies.
        client: What is to call MLflow, and says how long that takes.
    """

    def __init__(self, root: Path, client: Watched | None = None) -> None:
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._root = root
        # processes that first touch a database together would crash
        self._lock = FileLock(root / ".evidence" / "store.lock", timeout=CALL_SECONDS if is_remote(root) else PATIENT_SECONDS)
        (root / ".evidence").mkdir(exist_ok=True)
        with self._lock:
            self._make_database()
            self._client = client or Watched()
            self._client.client = MlflowClient(tracking_uri(root))
            self._experiment_id = self._find_or_create_experiment()

    def open(self, experiment: Experiment) -> Run:
        """The run of an experiment; made if there is none. Of several, made by machines at the same time, the first stays."""
        with self._lock:
            first, *others = self._search(DIGEST, experiment.digest) or [self._create(experiment)]
            for other in others:
                self._client.delete_run(other.info.run_id)
        return Run(self._client, first)

    def bring(self, content: Content) -> Run:
        """Bring the run of an experiment to what ``content`` says.

        A run that has other points of a metric that content has is of other bytes: it is replaced by a new one.
        """
        run = self.open(content.experiment)
        if run.contradicts(content):
            run = self._rebuilt(run, content.experiment)
        run.show(content)
        first = self._find(TRAINED, content.tags.get(TRAINED, ""))
        if first is not None and first.info.run_id != run.id:
            run.tag({TRAINED_IN: first.info.run_id})
        return run

    def named(self, name: str) -> list[Run]:
        """The runs with this id, this name, or a digest that begins so; also those that were deleted, as when rebuilt."""
        from mlflow.entities import ViewType

        if re.search(r"['\"\\]", name):
            return []
        wanted = [f"attributes.run_id = '{name}'", f"attributes.run_name = '{name}'"]
        wanted += [f"tags.`{DIGEST}` LIKE '{name}%'"] * bool(re.fullmatch("[0-9a-f]{4,64}", name))
        runs = [run for rule in wanted for run in self._client.search_runs([self._experiment_id], rule, ViewType.ALL)]
        return [Run(self._client, self._find(DIGEST, run.data.tags.get(DIGEST, "")) or run) for run in runs]

    def end_abandoned(self, but: str) -> None:
        """Mark the runs of this machine whose process is gone as killed, except the one with the digest ``but``."""
        for status in ("RUNNING", "SCHEDULED"):
            for run in self._client.search_runs([self._experiment_id], f"attributes.status = '{status}'"):
                if run.data.tags.get(DIGEST) != but and is_gone(run.data.tags.get(PROCESS, "")):
                    self._client.set_terminated(run.info.run_id, "KILLED")

    def _make_database(self) -> None:
        """Make a database that is not there yet under another name first.

        MLflow makes it in many steps, and could never open one that was left between two of them.
        """
        uri = tracking_uri(self._root)
        path = Path(uri.removeprefix("sqlite:///"))
        if not uri.startswith("sqlite:///") or path.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        fresh = path.with_name(f"{path.name}.new")
        for left in (fresh, path.with_name(f"{fresh.name}-journal")):
            left.unlink(missing_ok=True)
        SqlAlchemyStore(f"sqlite:///{fresh}", (self._root / "mlartifacts").as_uri()).engine.dispose()
        os.replace(fresh, path)

    def _find_or_create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = (self._root / "mlartifacts").as_uri() if tracking_uri(self._root).startswith("sqlite:") else None
            try:
                return self._client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
            except MlflowException:  # another machine was first
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage != "active":
            self._client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _search(self, tag: str, value: str) -> list[Any]:
        """The runs with this tag, the earliest first."""
        runs = self._client.search_runs(
            [self._experiment_id], f"tags.`{tag}` = '{value}'", order_by=["attributes.start_time ASC"]
        )
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def _find(self, tag: str, value: str) -> Any:
        """The earliest run with this tag."""
        return next(iter(self._search(tag, value)), None)

    def _create(self, experiment: Experiment, start_time: int | None = None) -> Any:
        """A new run, or the one that another machine made in the same moment: the earlier one stays."""
        tags = {DIGEST: experiment.digest}
        made = self._client.create_run(self._experiment_id, start_time, tags, experiment.name)
        first = self._find(DIGEST, experiment.digest)
        if first is None or first.info.run_id == made.info.run_id:
            return made
        self._client.delete_run(made.info.run_id)
        return first

    def _rebuilt(self, run: Run, experiment: Experiment) -> Run:
        with self._lock:
            self._client.delete_run(run.id)
            made = self._create(experiment, run.start_time)
            new = Run(self._client, made)
            for other in self._search(TRAINED_IN, run.id):
                Run(self._client, other).tag({TRAINED_IN: new.id})
            new.tag({name: value for name, value in run.tags.items() if not name.startswith("mlflow.")})
            new.tag({ARTIFACTS: "none", PATCH: "none"})
            new.points(run.measured)
        return new


def tracking_uri(root: Path) -> str:
    """Where runs go: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the main repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def is_remote(root: Path) -> bool:
    """Whether the store is a server, which may be away."""
    return tracking_uri(root).startswith("http")
