"""The one place that connects to a Dask cluster, sends it work, and says what to do where that fails.

What is sent holds nothing that the scheduler would have to load: a function of this project goes as bytes, inside of one that
goes by value. So the scheduler needs Dask only, and the workers this project.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pipeline.base.errors import InputError, reason
from pipeline.cluster.likeness import Sender, code, refuse_others, versions

ADDRESS = "DASK_SCHEDULER_ADDRESS"  # as Dask itself calls it
OURS = "pipeline.cluster"  # the name of an ImportError that a worker raises for the user
LOADING = threading.Lock()  # as threads of a worker that load modules which load each other wait for each other for good
SECONDS = 5  # in which a scheduler must answer
START = "`python -m dask worker {address} --nthreads 1`, in the folder of the project"
LOCALLY = f"or set `cluster: null` (and unset {ADDRESS}) to compute on this machine"


def scheduler_address(asked: str | None) -> str | None:
    """Where the scheduler is: as the environment says, or as asked; None to compute on this machine."""
    return os.environ.get(ADDRESS) or asked


class Cluster:
    """A cluster, as long as the block of `connected` lasts.

    Attributes:
        address: Of its scheduler.
        client: A ``dask.distributed.Client``.
    """

    def __init__(self, address: str, client: Any) -> None:
        self.address, self.client = address, client
        self._sender = Sender(uuid.uuid4().hex, tuple(versions().items()), tuple(code().items()))
        self._waits = False
        self._instructions = set[str]()
        client.subscribe_topic(self._sender.start, self._note)

    def threads(self) -> int:
        """How many calls its workers can make at a time, now; it is said, once, if there is none to wait for them."""
        threads = sum(self.client.nthreads().values())
        if not threads and not self._waits:
            how = START.format(address=self.address)
            print(f"cluster: {self.address} has no workers; waiting for some ({how})", flush=True)
            self._waits = True
        return threads

    def held(self, content: bytes, key: str) -> Any:
        """A future of a content that many tasks are given: each worker gets it once, and one that has lost it again."""
        from dask import config

        with config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return self.client.submit(bytes, content, key=key)

    def remote(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as workers call it, which refuse if they are not like this process; it has to be picklable."""
        content, sender, start = pickle.dumps(function), tuple(self._sender), START.format(address=self.address)

        def called(*arguments: Any) -> Any:
            try:
                work = import_module("pipeline.cluster.connection").work
            except (ImportError, AttributeError) as error:
                from dask.distributed import get_worker

                worker = f"the worker {get_worker().address}, in {os.getcwd()},"
                said = f"{worker} cannot load this project ({error}); start it with {start}"
                raise ImportError(said, name=OURS) from None
            return work(content, sender, arguments)

        return called

    def _note(self, event: tuple[float, dict[str, str]]) -> None:
        """Say, once each, what instruction sets workers have that this machine does not."""
        from torch.backends.cpu import get_cpu_capability

        worker, instructions = event[1]["worker"], event[1]["instructions"]
        if instructions not in (*self._instructions, ours := get_cpu_capability()):
            self._instructions.add(instructions)
            print(f"note: {worker} computes by {instructions}, this machine by {ours}: last digits may differ", flush=True)


def work(content: bytes, sender: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """Call what was sent; in a worker.

    Raises:
        InputError: If this process is not like the sender.
    """
    from dask.distributed import get_worker

    worker = get_worker()
    with LOADING:
        refuse_others(Sender(*sender), worker.address)
        function = pickle.loads(content)  # noqa: S301  # of this project's own process
    if (torch := sys.modules.get("torch")) is not None:
        worker.log_event(sender[0], {"worker": worker.address, "instructions": torch.backends.cpu.get_cpu_capability()})
    return function(*arguments)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster whose scheduler has this address, such as ``tcp://host:8786``; what it still computes at the end is dropped.

    Raises:
        InputError: If Dask is missing here, if no scheduler answers within five seconds or it has another version; and in the
            block, if the scheduler is lost, if a task's workers were killed time and again, or cannot load this project.
    """
    client = _client(address)
    try:
        with client:
            _refuse_other_dask(client.get_versions())
            yield Cluster(address, client)
    except Exception as error:
        if (remedy := _remedy(error, address)) is None:
            raise
        raise InputError(f"cluster: {remedy}") from error


def _client(address: str) -> Any:
    try:
        from dask.distributed import Client
    except ImportError as error:
        how = "`pip install '.[cluster]'` in the folder of the project"
        raise InputError(f"cluster: needs Dask ({reason(error)}); {how}, {LOCALLY}") from error
    try:
        asyncio.run(asyncio.wait_for(_reached(address), SECONDS))
        return Client(address, timeout=SECONDS, set_as_default=False)
    except Exception as error:  # of any kind, as what answers need not be Dask
        raise InputError(
            f"cluster: no Dask scheduler answers at {address} ({reason(error)}); see that the address is right and can be "
            f"reached from here, start a scheduler there (`python -m dask scheduler`), {LOCALLY}"
        ) from error


async def _reached(address: str) -> None:
    """Raise unless a scheduler answers; a client that does not reach one would take ten seconds more to end."""
    from distributed.comm.core import connect
    from distributed.security import Security

    comm = await connect(address, timeout=SECONDS, **Security().get_connection_args("client"))
    await comm.close()


def _remedy(error: Exception, address: str) -> str | None:
    """What is said of an error of Dask's; None of others."""
    from dask.distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    if isinstance(error, KilledWorker):
        return (
            f"{error.allowed_failures + 1} workers were killed while they computed {error.task}, the last of them "
            f"{error.last_worker.address}; their logs say by what. If memory was short, give each more (`--memory-limit`), or "
            "start fewer on a machine, and run again: what is done is kept"
        )
    if isinstance(error, CancelledError | CommClosedError):
        return (
            f"the scheduler at {address} was lost ({reason(error)}); start it and its workers again, {LOCALLY}, and run "
            "again: what is done is kept"
        )
    return str(error) if isinstance(error, ImportError) and error.name == OURS else None


def _refuse_other_dask(said: dict[str, Any]) -> None:
    """Refuse a scheduler or workers that could not even read what is sent."""
    ours = said["client"]["packages"]
    others = {"the scheduler": said["scheduler"]} | {f"the worker {name}": its for name, its in said["workers"].items()}
    for who, theirs in others.items():
        for name in ("python", "dask", "distributed"):
            if theirs["packages"][name] != ours[name]:
                raise InputError(
                    f"cluster: {who} has {name} {theirs['packages'][name]}, this process {ours[name]}; start it "
                    "with the same, as in requirements.lock"
                )
