"""What computes the parts of an evaluation beside this process: processes of this machine, or the workers of a cluster.

Both compute `computed`, with one thread, and give futures of bytes.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import lru_cache
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any, NamedTuple, Protocol

from pipeline.base.compute import use_threads
from pipeline.base.errors import InputError
from pipeline.cluster.connection import LOADING, connected

ENVIRONMENT = "EVIDENCE_WORKERS"
PRELOADED = [
    "vae.evidence",
    "pipeline.base.compute",
]  # once for all processes, which are forks of one that has done nothing else
ATTEMPTS = 2  # at a part whose process is killed


class Task(NamedTuple):
    """A call that is computed elsewhere.

    Attributes:
        name: Of the call.
        call: Pickled here: torch would share its arrays through files instead, whose number is limited.
        attempt: At it, counted from 1.
    """

    name: str
    call: bytes
    attempt: int = 1


Running = dict[Future[bytes], Task]


class Engine(Protocol):
    """Computes tasks, until it is closed."""

    def size(self) -> int:
        """How many tasks it computes at a time, now."""

    def submit(self, task: Task) -> Future[bytes]:
        """Compute a task; its result, pickled."""

    def lost(self, running: Running) -> Iterator[Task]:
        """Take out those whose process was killed, which are to be submitted again.

        Raises:
            InputError: If that is no use.
        """

    def close(self, *error: Any) -> None:
        """Drop what is still computed, because of an error or none."""


class Processes:
    """So many processes of this machine, each with one thread.

    Args:
        count: Processes.
        given: What each call gets first, pickled; sent to each process once.
    """

    def __init__(self, count: int, given: bytes) -> None:
        self._count, self._given = count, given
        self._start()

    def size(self) -> int:
        """The number of processes."""
        return self._count

    def submit(self, task: Task) -> Future[bytes]:
        """See `Engine`."""
        try:
            return self._pool.submit(_computed, task.call)
        except BrokenProcessPool as error:  # which it noticed between two calls
            future = Future[bytes]()
            future.set_exception(error)
            return future

    def lost(self, running: Running) -> Iterator[Task]:
        """All that runs when a process is killed; new processes come in place of all.

        Raises:
            InputError: If one of them was lost before.
        """
        if not any(future.done() and isinstance(future.exception(), BrokenProcessPool) for future in running):
            return
        wait(running)
        for future in [future for future in running if isinstance(future.exception(), BrokenProcessPool)]:
            name, call, attempt = running.pop(future)
            if attempt == ATTEMPTS:
                raise InputError(
                    f"a process was killed while it computed {name}, and so was the one that replaced it; if memory was short "
                    f"(`dmesg` names processes that were killed for that), set workers, or {ENVIRONMENT}, below "
                    f"{self._count}, and run again: what is done is kept"
                )
            yield Task(name, call, attempt + 1)
        self._start()

    def close(self, *error: Any) -> None:
        """End the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.kill()  # whatever it computes is of no use any more, and has left nothing half-written

    def _start(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._pool = ProcessPoolExecutor(self._count, context, _begin, (self._given,))
        for _ in range(self._count):
            self._pool.submit(int)  # a process starts with the first call that finds none at leisure


class OnCluster:
    """The workers of a Dask cluster, those that join later too; what a killed one computed, Dask gives to another.

    Args:
        address: Of the scheduler.
        given: What each call gets first, pickled; sent to each worker once, and again to one that has lost it.

    Raises:
        InputError: As `connected` does.
    """

    def __init__(self, address: str, given: bytes) -> None:
        self._connection = ExitStack()
        self._cluster = self._connection.enter_context(connected(address))
        self._executor = self._cluster.client.get_executor(pure=False)
        self._given = self._cluster.held(given, f"evidence-{hashlib.sha256(given).hexdigest()}")
        self._remote = self._cluster.remote(computed)

    def size(self) -> int:
        """The number of the workers' threads, at least 1: what is submitted waits for workers."""
        return max(1, self._cluster.threads())

    def submit(self, task: Task) -> Future[bytes]:
        """See `Engine`; the key, which Dask's messages show, begins with the name."""
        return self._executor.submit(self._remote, self._given, task.call, key=f"{task.name} ({uuid.uuid4().hex[:8]})")

    def lost(self, running: Running) -> Iterator[Task]:
        """None."""
        return iter(())

    def close(self, *error: Any) -> None:
        """Close the connection, by which the scheduler drops what is still to be computed.

        Raises:
            InputError: As `connected` does, in place of Dask's own errors.
        """
        self._connection.__exit__(*error)


_given = b""  # in a process of a pool


def _begin(given: bytes) -> None:
    """Prepare a process: Ctrl-C is its parent's affair, and it ends when that does."""
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _given = given


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _computed(call: bytes) -> bytes:
    return computed(_given, call)


def computed(given: bytes, call: bytes) -> bytes:
    """What a call makes of what all are given, in a process of a pool or of a cluster; all three pickled."""
    use_threads(1)  # of this thread's calls: a worker of a cluster may have several
    with LOADING:
        opened, common = pickle.loads(call), _opened(given)  # noqa: S301  # of this project's own process
    return pickle.dumps(quietly(opened, common))


@lru_cache(maxsize=2)  # as two stages may share a worker
def _opened(given: bytes) -> Any:
    return pickle.loads(given)  # noqa: S301  # of this project's own process


def quietly(call: Callable[[Any], Any], given: Any) -> Any:
    """Without warnings, which the summary repeats in its own words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(given)
