"""One MLflow run, and how it is brought to what a `Content` says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.experiment.identity import Experiment
from pipeline.experiment.records import digest
from pipeline.tracking.contents import MEASURED, Content, Point

ARTIFACTS, PATCH = "evidence.artifacts", "git.patch"  # tags: the digests of the artifacts and the patch that a run holds
PATCH_FILE = "code.patch"
FAILURE = "failure."  # begins the tag that tells why a stage failed
POINTS_PER_CALL = 1000


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
        """Mark a run as running, in this process, with its params and its origin."""
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

    def live(self, points: Iterable[Point]) -> None:
        """Log points of epochs that have just ended; of what is measured, the first measurement of an epoch stays."""
        held = {(name, step) for name, _, step in self.measured}
        self.points([point for point in points if (point[0], point[2]) not in held])

    @cached_property
    def measured(self) -> set[Point]:
        """What was measured while it trained, which no file holds, as the run had it when it was opened."""
        return self._points_of(MEASURED & set(self._run.data.metrics))

    def contradicts(self, content: Content) -> bool:
        """Whether the run holds another point of a metric that the content has too.

        Its params are those of the digest that it was found by; the defaults beside them, and which metrics it shows, are its
        version's.
        """
        names = {name for name, _, _ in content.points}
        return not self._points_of(names & set(self._run.data.metrics)) <= content.points

    def show(self, content: Content) -> None:
        """Add what the run misses of a content, and say how far the experiment is."""
        if not self._run.data.params:
            self._log_params(content.params)
        self.points(content.points - self._points_of(self._run.data.metrics.keys() - MEASURED))
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
        """Set those of the tags that have a value."""
        from mlflow.entities import RunTag

        changed = {name: value for name, value in tags.items() if value and self.tags.get(name) != value}
        if changed:
            self._client.log_batch(self.id, tags=[RunTag(name, value) for name, value in changed.items()])
            self.tags |= changed

    def values(self) -> set[Point]:
        """All metrics that the run holds, but for what was measured."""
        histories = (self._client.get_metric_history(self.id, name) for name in self._run.data.metrics.keys() - MEASURED)
        return {(point.key, point.value, point.step) for history in histories for point in history}

    def artifact(self, path: str) -> bytes | None:
        """The content of an artifact, if the run holds it."""
        folder, _, _ = path.rpartition("/")
        listed = self._client.list_artifacts(self.id, folder or None)
        if path not in [file.path for file in listed if not file.is_dir]:
            return None
        with tempfile.TemporaryDirectory(prefix="evidence-") as target:
            return Path(self._client.download_artifacts(self.id, path, target)).read_bytes()

    def _keep(self, patch: str) -> None:
        content = patch.encode(errors="surrogateescape")
        if patch and self.tags.get(PATCH) != digest(content.hex()):
            self._upload({PATCH_FILE: content})
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
