"""The MLflow view of a stage that runs: live, in a thread of its own, so that a store that is away or slow cannot hold it up.

MLflow never affects results: what fails here is reported once and then left alone, for a later stage or `make publish`.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipeline.base.environment import facts, is_first_process
from pipeline.base.errors import InputError, reason
from pipeline.base.processes import this_process
from pipeline.experiment.identity import Experiment, patch, workspace_origin
from pipeline.experiment.records import Record, current_records
from pipeline.tracking.contents import Point, content_of, live_points
from pipeline.tracking.run import Run
from pipeline.tracking.store import PATIENT_SECONDS, PROCESS, Store, is_remote
from pipeline.tracking.watch import Watched

FLUSH_SECONDS = 1.0  # between sendings of live points
ANSWER_SECONDS, REMEMBERED_SECONDS = 5.0, 1.0  # what a server may take, and one that was away when it was last asked

T = TypeVar("T")


class Silent:
    """The view of nothing: in the processes beside the first one, and where ``EVIDENCE_TRACKING`` is ``off``."""

    def log(self, row: Mapping[str, float]) -> None:
        """Show nothing of a row."""

    def tag(self, name: str, value: object) -> None:
        """Show nothing of a fact."""

    def publish(self) -> None:
        """Show nothing of the files."""

    def fail(self, error: BaseException) -> None:
        """Show nothing of an error."""


class View:
    """The MLflow run of the experiment in the working directory, while one of its stages runs.

    It is found or made, and marked as running, in the background.

    Args:
        stage: The stage.
        stages: The stages as declared now.
        root: The main repository.
        threads: Of the computation, to be shown.
    """

    def __init__(self, stage: str, stages: Mapping[str, Record], root: Path, threads: int | None) -> None:
        self._stage, self._root, self._threads = stage, root, threads
        self._points: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self._tags: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._last: queue.SimpleQueue[Callable[[Store, Run], object]] = queue.SimpleQueue()
        self._ready, self._done = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._client = Watched()
        origin = workspace_origin(stages)
        self._experiment = Experiment(stages, origin)
        self._patch = patch(stages) if origin["git.dirty"] == "true" else ""
        threading.Thread(target=self._show, name="tracking", daemon=True).start()

    def log(self, row: Mapping[str, float]) -> None:
        """Show a row of an epoch, see `live_points`, within a second or two."""
        for point in live_points(row):
            self._points.put(point)

    def tag(self, name: str, value: object) -> None:
        """Show one more fact of the machine, ``machine.NAME``, on which no byte depends, within a second or two."""
        self._tags.put({f"machine.{name}": str(value)})

    def publish(self) -> None:
        """Bring the run to what the files of all stages that are current say."""
        content = content_of(self._experiment, current_records(), lambda path: Path(path).read_bytes())
        self._finish(lambda store, run: store.bring(replace(content, patch=self._patch)))

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed (killed, if the user interrupted it), with the reason."""
        interrupted = isinstance(error, KeyboardInterrupt)
        self._finish(lambda store, run: run.fail(self._stage, reason(error), interrupted=interrupted))

    def _show(self) -> None:
        """Show what is given, in the thread, until the last task is done."""
        try:
            import mlflow  # noqa: F401  # takes a second or two, which no outage can lengthen

            self._ready.set()
            store = Store(self._root, self._client)
            run = store.open(self._experiment)
            machine = {f"machine.{name}": value for name, value in facts(self._threads).items()}
            run.start(self._experiment, machine | {PROCESS: this_process()}, self._patch)
            store.end_abandoned(but=self._experiment.digest)
            self._wait(run)(store, run)
            while not self._last.empty():  # the stage was interrupted as it was published
                self._last.get()(store, run)
            outage(self._root).unlink(missing_ok=True)
        except Exception as error:
            self._error = error
        finally:
            self._ready.set()
            self._done.set()

    def _wait(self, run: Run) -> Callable[[Store, Run], object]:
        """The last task; until it comes and before it is done, what is live is sent: what was measured stands in no file."""
        task = None
        while task is None:
            with suppress(queue.Empty):
                task = self._last.get(timeout=FLUSH_SECONDS)
            if live := [self._points.get() for _ in range(self._points.qsize())]:
                run.live(live)
            for _ in range(self._tags.qsize()):
                run.tag(self._tags.get())
        return task

    def _finish(self, task: Callable[[Store, Run], object]) -> None:
        """Give the thread its last task, and wait in the stage until that is done; warn if it fails or is not in time."""
        self._last.put(task)
        self._ready.wait()
        begin = time.monotonic()
        while not self._done.wait(0.02):
            if time.monotonic() > begin + patience(self._root, self._client):
                self._error = TimeoutError("the store does not answer")
                break
        if self._error is not None:
            outage(self._root).touch()
            warn(self._error)


@contextmanager
def stage(name: str, stages: Mapping[str, Record], root: Path, threads: int | None) -> Iterator[View | Silent]:
    """Show a stage in MLflow: running, then finished with all that its files say, or failed with the reason."""

    def begin() -> View | Silent:
        if is_first_process() and os.environ.get("EVIDENCE_TRACKING") != "off":
            with _harmless():
                return View(name, stages, root, threads)
        return Silent()

    shows_failure_alone = name == "prepare"
    view = Silent() if shows_failure_alone else begin()
    try:
        yield view
        with _harmless():
            view.publish()
    except BaseException as error:
        with _harmless():
            (begin() if shows_failure_alone else view).fail(error)
        raise


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        warn(error)


def watched(root: Path, work: Callable[[Store], T]) -> T:
    """Work on the store, and give up when it does not answer at all, or one call takes a minute.

    Raises:
        InputError: If the store cannot be had.
    """
    import mlflow  # noqa: F401

    client, results = Watched(), queue.SimpleQueue[T | Exception]()

    def run() -> None:
        try:
            results.put(work(Store(root, client)))
        except Exception as error:
            results.put(error)

    thread, begin = threading.Thread(target=run, daemon=True), time.monotonic()
    thread.start()
    while thread.is_alive() and (
        client.seconds < PATIENT_SECONDS if client.calls else time.monotonic() < begin + patience(root, client)
    ):
        thread.join(0.02)
    result = TimeoutError("it does not answer") if results.empty() else results.get()
    if isinstance(result, Exception):
        outage(root).touch()
        raise InputError(f"MLflow's store cannot be had, results are not affected: {reason(result)}") from result
    outage(root).unlink(missing_ok=True)
    return result


def patience(root: Path, client: Watched) -> float:
    """The seconds in which a store must answer: fewer for a server that did not when it was last asked, and has not since."""
    if not is_remote(root):
        return PATIENT_SECONDS  # a database here may be slow, but is not away
    return REMEMBERED_SECONDS if outage(root).exists() and not client.calls else ANSWER_SECONDS


def outage(root: Path) -> Path:
    """The file that says, by being there, that the store did not answer when it was last asked."""
    path = root / ".evidence" / "outage"
    path.parent.mkdir(exist_ok=True)
    return path


def warn(error: BaseException) -> None:
    """Say once that MLflow does not show the run, and what completes it."""
    print(
        f"warning: MLflow does not show this stage, results are not affected ({reason(error)}); `make publish` completes the "
        "run when the store is back",
        file=sys.stderr,
    )
