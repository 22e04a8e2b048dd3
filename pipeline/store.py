"""The MLflow store: one run per experiment, found or made, and brought to what a `Content` says. All of it may be repeated."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.contents import TRAINED, Content, Point
from pipeline.experiment import Experiment
from pipeline.processes import is_gone
from pipeline.records import digest

EXPERIMENT = "evidence"  # MLFLOW_EXPERIMENT_NAME names another
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # how the UI shows it: as training runs
DIGEST = "evidence.digest"
PROCESS = "evidence.process"
TRAINED_IN = "evidence.trained_in"  # the first run with this training
FAILURE = "failure."
POINTS_PER_CALL = 1000
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
        watch: Says how long a call takes that is under way.
    """

    def __init__(self, root: Path, watch: Watch | None = None) -> None:
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._root = root
        # processes that first touch a database together would crash
        self._lock = FileLock(root / ".evidence" / "store.lock", timeout=CALL_SECONDS if is_remote(root) else PATIENT_SECONDS)
        (root / ".evidence").mkdir(exist_ok=True)
        with self._lock:
            self._make_database()
            self._client = _Watched(MlflowClient(tracking_uri(root)), watch or Watch())
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

        A run that has other params, or other points where content has some, is of other bytes: it is replaced by a new one.
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
        found = [run for one in wanted for run in self._client.search_runs([self._experiment_id], one, ViewType.ALL)]
        return [Run(self._client, self._find(DIGEST, run.data.tags.get(DIGEST, "")) or run) for run in found]

    def end_abandoned(self, but: str) -> None:
        """Mark the runs of this machine whose process is gone as killed, except the one with the digest ``but``."""
        for status in ("RUNNING", "SCHEDULED"):
            found = self._client.search_runs([self._experiment_id], f"attributes.status = '{status}'")
            for run in found:
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
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = (self._root / "mlartifacts").as_uri() if tracking_uri(self._root).startswith("sqlite:") else None
            try:
                return self._client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
            except MlflowException:  # another machine was first
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self._client.restore_experiment(found.experiment_id)
        return found.experiment_id

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
        return new


ARTIFACTS, PATCH = "evidence.artifacts", "git.patch"  # tags: the digests of the artifacts and the patch that a run holds


class Run:
    """One MLflow run."""

    def __init__(self, client: Any, run: Any) -> None:
        self._client, self._run = client, run
        self.id: str = run.info.run_id
        self.start_time: int = run.info.start_time
        self.tags: dict[str, str] = dict(run.data.tags)

    @property
    def failures(self) -> set[str]:
        """The stages that failed and have not succeeded since."""
        return {tag.removeprefix(FAILURE) for tag in self.tags if tag.startswith(FAILURE)}

    def start(self, experiment: Experiment, tags: Mapping[str, str], patch: str) -> None:
        """Mark the run as running, in this process, with its params and its origin."""
        self._client.update_run(self.id, status="RUNNING", name=experiment.given_name)
        self.tag({**experiment.tags, **tags})
        content = Content(experiment)
        if not self._run.data.params:
            self._log_params(content.params)
        self._keep(patch)

    def points(self, points: Iterable[Point]) -> None:
        """Log values at steps. A point's time is that of its step (a second each), so logging it again changes nothing."""
        from mlflow.entities import Metric

        start = self._run.info.start_time
        metrics = [Metric(name, float(value), start + 1000 * step, step) for name, value, step in sorted(points)]
        for first in range(0, len(metrics), POINTS_PER_CALL):
            self._client.log_batch(self.id, metrics=metrics[first : first + POINTS_PER_CALL])

    def contradicts(self, content: Content) -> bool:
        """Whether the run holds what a run of this content cannot: another param, or a point that is not the content's."""
        held = self._run.data.params
        if held and held != content.params:
            return True
        names = {name for name, _, _ in content.points}
        metrics = set(self._run.data.metrics)
        foreign = metrics - names if content.is_complete else set()
        return bool(foreign) or not self._points_of(metrics & names) <= content.points

    def show(self, content: Content) -> None:
        """Add what is missing, and say how far the experiment is."""
        if not self._run.data.params:
            self._log_params(content.params)
        self.points(content.points - self._points_of(set(self._run.data.metrics)))
        held = digest({path: digest(body.hex()) for path, body in content.artifacts.items()})
        if self.tags.get(ARTIFACTS) != held:
            self._upload(content.artifacts)
        self._keep(content.patch)
        self.tag({**content.experiment.tags, **content.tags, ARTIFACTS: held})
        for stage in self.failures & set(content.finished):
            self._client.delete_tag(self.id, FAILURE + stage)
            del self.tags[FAILURE + stage]
        if content.experiment.given_name:
            self._client.update_run(self.id, name=content.experiment.given_name)
        if self.failures:
            self._client.set_terminated(self.id, "FAILED")
        elif content.is_complete:
            self._client.set_terminated(self.id, "FINISHED")
        else:
            self._client.update_run(self.id, status="SCHEDULED")  # its next stage has not begun

    def fail(self, stage: str, reason: str, *, interrupted: bool) -> None:
        """Mark the run as failed (killed, if the user interrupted it), with the reason."""
        self.tag({FAILURE + stage: reason})
        self._client.set_terminated(self.id, "KILLED" if interrupted else "FAILED")

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set the tags that have a value."""
        from mlflow.entities import RunTag

        changed = {name: value for name, value in tags.items() if value and self.tags.get(name) != value}
        if changed:
            self._client.log_batch(self.id, tags=[RunTag(name, value) for name, value in changed.items()])
            self.tags |= changed

    def values(self) -> set[Point]:
        """All metrics that it holds."""
        histories = (self._client.get_metric_history(self.id, name) for name in self._run.data.metrics)
        return {(point.key, point.value, point.step) for history in histories for point in history}

    def artifact(self, path: str) -> bytes | None:
        """The content of an artifact, if the run holds it."""
        folder, _, _ = path.rpartition("/")
        found = self._client.list_artifacts(self.id, folder or None)
        if path not in [file.path for file in found if not file.is_dir]:
            return None
        with tempfile.TemporaryDirectory(prefix="evidence-") as target:
            return Path(self._client.download_artifacts(self.id, path, target)).read_bytes()

    def _keep(self, patch: str) -> None:
        content = patch.encode(errors="surrogateescape")
        if patch and self.tags.get(PATCH) != digest(content.hex()):
            self._upload({"code.patch": content})
            self.tag({PATCH: digest(content.hex())})

    def _log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self.id, params=[Param(name, value) for name, value in params.items()])

    def _points_of(self, names: Iterable[str]) -> set[Point]:
        histories = (self._client.get_metric_history(self.id, name) for name in sorted(names))
        start = self._run.info.start_time
        return {
            (point.key, point.value, point.step if point.timestamp == start + 1000 * point.step else -1)
            for history in histories
            for point in history
        }

    def _upload(self, artifacts: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix="evidence-") as folder:
            for name, content in artifacts.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                self._client.log_artifact(self.id, str(path), str(Path(name).parent) if "/" in name else None)


class Watch:
    """Since when a call of MLflow has been under way, for somebody in another thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self.calls = 0  # that have returned

    @contextmanager
    def call(self) -> Iterator[None]:
        """While a call is under way."""
        self._since = time.monotonic()
        yield
        self._since = None
        self.calls += 1

    @property
    def seconds(self) -> float:
        """How long the call has taken that is under way; 0 where none is."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


class _Watched:
    """A client whose calls are watched."""

    def __init__(self, client: Any, watch: Watch) -> None:
        self._client, self._watch = client, watch

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._watch.call():
                return method(*args, **kwargs)

        return call


def tracking_uri(root: Path) -> str:
    """Where runs go: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the main repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"


def is_remote(root: Path) -> bool:
    """Whether the store is a server, which may be away."""
    return tracking_uri(root).startswith("http")


def reason(error: BaseException) -> str:
    """The first line of an error, without credentials."""
    lines = str(error).splitlines()
    said = re.sub(r"//[^/\s]*@", "//***@", f"{type(error).__name__}: {lines[0] if lines else ''}")
    return re.sub(r"(?i)\b(password|passwd|token|secret|sslkey|key)=[^&\s'\"]+", r"\1=***", said)[:300]
