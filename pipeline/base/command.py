"""What every stage does: read its command line and params, set the threads, report errors that the user can mend."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from socket import socket, socketpair
from types import FrameType

from pipeline.base.errors import InputError

ENDING = (signal.SIGINT, signal.SIGTERM)
GRACE = 4.0  # seconds that a process which is told to end may take: schedulers and containers wait some more, then kill


def run_stage(name: str, summary: str) -> int:
    """Run the ``main`` of `pipeline.stages`' module of this name, which is loaded only after the command line is read."""

    def work() -> None:
        gc.disable()  # what is loaded stays: to look through it for garbage takes a fifth of the time of loading,
        stage = import_module(f"pipeline.stages.{name}")
        gc.freeze()  # and again a second while MLflow is loaded beside the stage's work
        gc.enable()
        stage.main()

    return run(name, summary, work)


def run(name: str, summary: str, work: Callable[[], None]) -> int:
    """Run a command without arguments; see `command`."""
    return command(name, argparse.ArgumentParser(description=summary), lambda arguments: work())


def command(name: str, parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None]) -> int:
    """Run ``python -m pipeline.NAME``.

    Returns:
        The exit status: 0, or 1 after an error that the user can mend, which is printed without a traceback; 130 after Ctrl-C
        and 143 after SIGTERM, by which schedulers and containers ask a process to end.
    """
    parser.prog = f"python -m pipeline.{name}"
    arguments = parser.parse_args()
    atexit.register(gc.freeze)  # or Python looks through all that was loaded for garbage before it ends, for a second or two
    told, late = list[int](), f"stage {name} was interrupted; run it again to go on from its last saved state"
    try:
        with _told_to_end(told, late):
            work(arguments)
    except Exception as error:
        if _is_disk_full(error):
            error = OSError(f"{error}; free some space and run again: it goes on from its last saved state")
        elif not isinstance(error, InputError):
            raise
        print(f"error in stage {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(late, file=sys.stderr)
        return 128 + (told or [signal.SIGINT])[0]
    return 0


@contextmanager
def _told_to_end(told: list[int], late: str) -> Iterator[None]:
    """Make KeyboardInterrupt of the first signal that asks to end, which is noted; another Ctrl-C ends the process at once.

    Python acts on a signal only between two operations, and one of a library may take long: what has not ended in time is
    ended, saying ``late``.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if not told:
            told.append(number)
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in ENDING}
    heard, written = socketpair()
    written.setblocking(False)
    woken = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(heard, late), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        written.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_in_time(signals: socket, late: str) -> None:
    """End this process some seconds after the first signal that asks to, or at a Ctrl-C after it, unless no more can come."""
    first = 0
    with signals, suppress(TimeoutError):
        while heard := signals.recv(1):
            if first and heard[0] == signal.SIGINT:
                break
            if not first and heard[0] in ENDING:
                first = heard[0]
                signals.settimeout(GRACE)
        else:
            return
    os.write(2, f"{late}\n".encode())
    os._exit(128 + first)


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
