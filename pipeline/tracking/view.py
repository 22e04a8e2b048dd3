"""The MLflow view of a stage that runs: live, in a thread of its own, so that a store that is away or slow cannot hold it up.

MLflow never affects results: what fails here is reported once and then left alone, for a later stage or `make publish`.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.environment import facts, is_first_process
from pipeline.base.errors import InputError, reason
from pipeline.base.files import to_json
from pipeline.base.processes import this_process
from pipeline.record.experiment import Experiment, patch, workspace_origin
from pipeline.record.records import Record, current_records
from pipeline.tracking.contents import Content, Point, content_of, live_points
from pipeline.tracking.run import Run
from pipeline.tracking.store import CALL_SECONDS, PATIENT_SECONDS, PROCESS, Store, is_remote
from pipeline.tracking.watch import Watch

FLUSH_SECONDS = 1.0  # between sendings of live points
REMEMBERED_SECONDS = 1.0  # what a server may take to answer at first while an outage is remembered
OUTAGE_SECONDS = 8.0  # what the stages may wait in all for a server that stays away

T = TypeVar("T")


class View:
    """The MLflow run of the experiment in the working directory, while one of its stages runs.

    Args:
        stage: The stage.
        stages: The stages as declared now.
        root: The main repository.
        threads: Of the computation, to be shown.
    """

    def __init__(self, stage: str, stages: Mapping[str, Record], root: Path, threads: int) -> None:
        self._stage, self._root, self._threads = stage, root, threads
        self._stages = stages
        self._points: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[Callable[[Run], None] | None] = queue.SimpleQueue()
        self._ready, self._done = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._watch = Watch()
        self._store: Store | None = None
        self._outage = Outage(root)

    def open(self) -> None:
        """Find or create the run and mark it as running, in the background."""
        origin = workspace_origin(self._stages)
        self._experiment = Experiment(self._stages, origin)
        self._patch = patch(self._stages) if origin["git.dirty"] == "true" else ""
        threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def log(self, row: Mapping[str, float]) -> None:
        """Show a row of an epoch, see `live_points`, within a second or two."""
        for point in live_points(row):
            self._points.put(point)

    def publish(self) -> None:
        """Bring the run to what the files of all stages that are current say."""
        records = current_records()
        content = content_of(self._experiment, records, lambda path: Path(path).read_bytes())
        self._finish(lambda run: self._bring(replace(content, patch=self._patch)))

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed (killed, if the user interrupted it), with the reason."""
        interrupted = isinstance(error, KeyboardInterrupt)
        self._finish(lambda run: run.fail(self._stage, reason(error), interrupted=interrupted))

    def _bring(self, content: Content) -> None:
        assert self._store is not None
        self._store.bring(content)

    # ---- in the thread

    def _work(self) -> None:
        try:
            import mlflow  # noqa: F401  # takes a second or two, which no outage can lengthen

            self._ready.set()
            self._store = Store(self._root, self._watch)
            run = self._store.open(self._experiment)
            run.start(self._experiment, self._machine(), self._patch)
            self._store.end_abandoned(but=self._experiment.digest)
            while (task := self._next(run)) is not None:
                task(run)
            self._outage.forget()
        except Exception as error:
            self._error = error
        finally:
            self._ready.set()
            self._done.set()

    def _next(self, run: Run) -> Callable[[Run], None] | None:
        """The next task; meanwhile what is live is sent."""
        while True:
            try:
                task = self._tasks.get(timeout=FLUSH_SECONDS)
            except queue.Empty:
                self._send(run)
            else:
                self._send(run)  # what was measured stands in no file
                return task

    def _send(self, run: Run) -> None:
        live = [self._points.get() for _ in range(self._points.qsize())]
        if live:
            run.live(live)

    def _machine(self) -> dict[str, str]:
        return {f"machine.{name}": value for name, value in facts(self._threads).items()} | {PROCESS: this_process()}

    # ---- in the stage

    def _finish(self, task: Callable[[Run], None]) -> None:
        self._tasks.put(task)
        self._tasks.put(None)
        self._ready.wait()
        begin = time.monotonic()
        if not self._wait():
            self._error = TimeoutError("the store does not answer")
        if self._error is not None:
            self._outage.remember(time.monotonic() - begin)
            warn(self._error)

    def _wait(self) -> bool:
        """Whether the thread came to its end before a call or all of them took too long."""
        begin, waited = time.monotonic(), self._outage.waited()
        while not self._done.wait(0.02):
            per_call, in_all = self._patience(waited)
            if time.monotonic() > begin + in_all or self._watch.seconds > per_call:
                return False
        return True

    def _patience(self, waited: float) -> tuple[float, float]:
        """How long to wait for a call, and for all: less for a server that was away and has not answered yet."""
        if not is_remote(self._root):
            return PATIENT_SECONDS, PATIENT_SECONDS
        left = max(REMEMBERED_SECONDS, OUTAGE_SECONDS - waited)
        if self._outage.is_remembered() and not self._watch.calls:
            return REMEMBERED_SECONDS, min(2 * REMEMBERED_SECONDS, left)
        return CALL_SECONDS, min(2 * CALL_SECONDS, left)


class Outage:
    """That the store did not answer, remembered from stage to stage so that each waits less."""

    def __init__(self, root: Path) -> None:
        self._path = root / ".evidence" / "outage.json"

    def remember(self, waited: float = 0.0) -> None:
        """From now on, with the seconds waited in vain."""
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(to_json({"waited": self.waited() + waited}))

    def waited(self) -> float:
        """The seconds that were waited for it in vain since it went away."""
        try:
            return float(json.loads(self._path.read_text())["waited"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def forget(self) -> None:
        """It answers again."""
        self._path.unlink(missing_ok=True)

    def is_remembered(self) -> bool:
        """Whether the last stage that looked found it away."""
        return self._path.exists()


class Off(View):
    """No view: in the processes beside the first one, and where ``EVIDENCE_TRACKING`` is ``off``."""

    def open(self) -> None:
        """Nothing."""

    def log(self, row: Mapping[str, float]) -> None:
        """Nothing."""

    def publish(self) -> None:
        """Nothing."""

    def fail(self, error: BaseException) -> None:
        """Nothing."""


class OnFailure(View):
    """The view of a stage that has nothing to show unless it fails."""

    def open(self) -> None:
        """Nothing yet."""

    def publish(self) -> None:
        """Nothing."""

    def fail(self, error: BaseException) -> None:
        """Find or create the run now, to mark it."""
        super().open()
        super().fail(error)


@contextmanager
def stage(name: str, stages: Mapping[str, Record], root: Path, threads: int) -> Iterator[View]:
    """Show a stage in MLflow: running, then finished with all that its files say, or failed with the reason."""
    off = not is_first_process() or os.environ.get("EVIDENCE_TRACKING") == "off"
    kind = Off if off else OnFailure if name == "prepare" else View
    view = kind(name, stages, root, threads)
    with _harmless():
        view.open()
    try:
        yield view
    except BaseException as error:
        with _harmless():
            view.fail(error)
        raise
    with _harmless():
        view.publish()


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

    watch, outage, results = Watch(), Outage(root), queue.SimpleQueue[Callable[[], T]]()
    thread = threading.Thread(target=lambda: results.put(_outcome(lambda: work(Store(root, watch)))), daemon=True)
    first = REMEMBERED_SECONDS if outage.is_remembered() else CALL_SECONDS
    first = first if is_remote(root) else PATIENT_SECONDS  # a database here may be slow, but is not away
    thread.start()
    begin = time.monotonic()
    while thread.is_alive() and (watch.seconds < PATIENT_SECONDS if watch.calls else time.monotonic() < begin + first):
        thread.join(0.02)
    if thread.is_alive():
        results.put(_outcome(_no_answer))
    try:
        found = results.get()()
    except Exception as error:
        outage.remember()
        raise InputError(f"MLflow's store cannot be had, results are not affected: {reason(error)}") from error
    outage.forget()
    return found


def _outcome(work: Callable[[], T]) -> Callable[[], T]:
    """What gives the result of ``work``, or raises its error, when called."""
    try:
        value = work()
    except Exception as error:
        return partial(_raise, error)
    return lambda: value


def _raise(error: Exception) -> Any:
    raise error


def _no_answer() -> Any:
    raise TimeoutError("it does not answer")


def warn(error: BaseException) -> None:
    """Say once that MLflow does not show the run, and what completes it."""
    print(
        f"warning: MLflow does not show this stage, results are not affected ({reason(error)}); `make publish` completes the "
        "run when the store is back",
        file=sys.stderr,
    )
