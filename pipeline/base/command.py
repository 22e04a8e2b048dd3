"""What every stage does: read its command line and params, set the threads, report errors that the user can mend."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

from pipeline.base.errors import InputError


def run_stage(name: str, summary: str) -> int:
    """Run the ``main`` of `pipeline.stages`' module of this name, which is loaded only after the command line is read."""
    return run(name, summary, lambda: import_module(f"pipeline.stages.{name}").main())


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
    told = list[int]()
    try:
        with _told_to_end(told):
            work(arguments)
    except Exception as error:
        if _is_disk_full(error):
            error = OSError(f"{error}; free some space and run again: it goes on from its last saved state")
        elif not isinstance(error, InputError):
            raise
        print(f"error in stage {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stage {name} was interrupted; run it again to go on from its last saved state", file=sys.stderr)
        return 128 + (told or [signal.SIGINT])[0]
    return 0


@contextmanager
def _told_to_end(told: list[int]) -> Iterator[None]:
    """Make KeyboardInterrupts of the first signal that asks to end, which is noted; a second one ends at once."""

    def end(number: int, frame: FrameType | None) -> None:
        if told:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        told.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
