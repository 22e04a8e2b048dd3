"""Processes that compute parts of an evaluation, each with one thread: as many as there are cores, and the same bytes.

What a part gives depends on the part alone, and parts do not depend on how many processes there are, nor on where they are; so
neither does what comes out. One thread each, because two threads of a process would wait for each other after operations of
microseconds, and, beside other busy processes, for a core each time.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from types import TracebackType
from typing import Any

import joblib

from pipeline.base.compute import use_threads
from pipeline.base.errors import InputError
from pipeline.evaluation.engines import ENVIRONMENT, Engine, OnCluster, Processes, Running, Task, quietly

AHEAD = 2  # parts that each process has at a time, so that it need not wait for the next
LOOK = 1.0  # seconds after which those that have joined a cluster are seen, though no part ends

Call = Callable[[Any], Any]  # from what all calls are given, such as the model


def workers_here(asked: int | None) -> int:
    """How many processes compute: as the environment says, or as asked, or as many as there are cores for this one.

    Raises:
        InputError: If EVIDENCE_WORKERS is no number of processes.
    """
    if not (said := os.environ.get(ENVIRONMENT)):
        return asked or joblib.cpu_count()
    if not said.isdecimal() or not int(said):
        raise InputError(f"{ENVIRONMENT} must be a number of processes, at least 1; got {said!r}")
    return int(said)


class Workers:
    """So many processes, while a ``with`` block lasts; with one, this process computes.

    Args:
        count: Processes.
        given: What each call gets first, such as the model; sent to each process once.
        cluster: The address of a Dask scheduler, whose workers compute in their place; None for this machine.
    """

    def __init__(self, count: int, given: Any, cluster: str | None = None) -> None:
        self._count, self._given, self._cluster = count, given, cluster
        self._engine: Engine | None = None

    def __enter__(self) -> Workers:
        use_threads(1)
        if self._cluster is not None:
            self._engine = OnCluster(self._cluster, pickle.dumps(self._given))
        elif self._count > 1:
            self._engine = Processes(self._count, pickle.dumps(self._given))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._engine is not None:
            self._engine.close(kind, error, traceback)

    def compute(self, calls: Iterable[tuple[str, Call]]) -> Iterator[tuple[str, Any]]:
        """Names of calls with what they give, as they end.

        Raises:
            InputError: If a process was killed, and again after it was replaced.
        """
        if self._engine is None:
            yield from ((name, quietly(call, self._given)) for name, call in calls)
            return
        left, again, running = iter(calls), deque[Task](), Running()
        while True:
            most = AHEAD * self._engine.size()
            while len(running) < most and (task := _next(again, left)):
                running[self._engine.submit(task)] = task
            if not running:
                return
            done, _ = wait(running, LOOK, FIRST_COMPLETED)
            again.extend(self._engine.lost(running))
            for future in done & running.keys():
                yield running.pop(future).name, pickle.loads(future.result())  # noqa: S301  # of this project's own process

    def in_order(self, calls: Iterable[tuple[str, Call]]) -> Iterator[Any]:
        """What calls give, in their order."""
        names, held = deque[str](), dict[str, Any]()

        def noted() -> Iterator[tuple[str, Call]]:
            for name, call in calls:
                names.append(name)
                yield name, call

        for name, result in self.compute(noted()):
            held[name] = result
            while names and names[0] in held:
                yield held.pop(names.popleft())


def _next(again: deque[Task], left: Iterator[tuple[str, Call]]) -> Task | None:
    if again:
        return again.popleft()
    return next((Task(name, pickle.dumps(call)) for name, call in left), None)
