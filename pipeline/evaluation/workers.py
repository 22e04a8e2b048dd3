"""Processes that compute parts of an evaluation, each with one thread: as many as there are cores, and the same bytes.

What a part gives depends on the part alone, and parts do not depend on how many processes there are; so neither does what
comes out. One thread each, because two threads of a process would wait for each other after operations of microseconds, and,
beside other busy processes, for a core each time.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from types import TracebackType
from typing import Any

import joblib

from pipeline.base.compute import use_threads
from pipeline.base.errors import InputError

AHEAD = 2  # parts that each process has at a time, so that it need not wait for the next
ENVIRONMENT = "EVIDENCE_WORKERS"
PRELOADED = [
    "vae.evidence",
    "pipeline.base.compute",
]  # once for all processes, which are forks of one that has done nothing else
ATTEMPTS = 2  # at a part whose process is killed

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
    """

    def __init__(self, count: int, given: Any) -> None:
        self._count, self._given = count, given
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        use_threads(1)
        if self._count > 1:
            self._content = pickle.dumps(self._given)
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.kill()  # whatever it computes is of no use any more, and has left nothing half-written

    def compute(self, calls: Iterable[tuple[str, Call]]) -> Iterator[tuple[str, Any]]:
        """Names of calls with what they give, as they end.

        Raises:
            InputError: If a process was killed, and again after it was replaced.
        """
        if self._pool is None:
            yield from ((name, _quietly(call, self._given)) for name, call in calls)
            return
        left, again = iter(calls), deque[tuple[str, bytes, int]]()
        running: dict[Future[bytes], tuple[str, bytes, int]] = {}
        while True:
            while len(running) < AHEAD * self._count and (task := _next(again, left)):
                running[self._submit(task[1])] = task
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                again.extend(self._replaced(running))
            for future in done & running.keys():
                name, _, _ = running.pop(future)
                yield name, pickle.loads(future.result())  # noqa: S301  # of this project's own process

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

    def _replaced(self, running: dict[Future[bytes], tuple[str, bytes, int]]) -> Iterator[tuple[str, bytes, int]]:
        """After a process was killed: the parts that are lost, to be computed by new ones."""
        wait(running)
        lost = [future for future in running if isinstance(future.exception(), BrokenProcessPool)]
        for future in lost:
            name, call, attempt = running.pop(future)
            if attempt == ATTEMPTS:
                raise InputError(
                    f"a process was killed while it computed {name}, and so was the one that replaced it; if memory was short "
                    f"(`dmesg` names processes that were killed for that), set workers, or {ENVIRONMENT}, below "
                    f"{self._count}, and run again: what is done is kept"
                )
            yield name, call, attempt + 1
        self._start()

    def _start(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._pool = ProcessPoolExecutor(self._count, context, _begin, (self._content,))
        for _ in range(self._count):
            self._pool.submit(int)  # a process starts with the first call that finds none at leisure

    def _submit(self, call: bytes) -> Future[bytes]:
        assert self._pool is not None
        try:
            return self._pool.submit(_computed, call)
        except BrokenProcessPool as error:  # which it noticed between two calls
            future = Future[bytes]()
            future.set_exception(error)
            return future


def _next(again: deque[tuple[str, bytes, int]], left: Iterator[tuple[str, Call]]) -> tuple[str, bytes, int] | None:
    """The next part, as bytes: torch would share its arrays through files instead, whose number is limited."""
    if again:
        return again.popleft()
    return next(((name, pickle.dumps(call), 1) for name, call in left), None)


_given: Any = None  # in a process of a pool


def _begin(content: bytes) -> None:
    """Prepare a process: one thread, Ctrl-C is its parent's affair, and it ends when that does."""
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(1)
    _given = pickle.loads(content)  # noqa: S301  # of this project's own process


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _computed(call: bytes) -> bytes:
    return pickle.dumps(_quietly(pickle.loads(call), _given))  # noqa: S301  # of this project's own process


def _quietly(call: Call, given: Any) -> Any:
    """Without warnings, which the summary repeats in its own words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(given)
