"""Runs a command, and ends it with all that it started once standard input closes: when its parent says so, or is gone.

``python guard.py SIGNAL USER COMMAND...``: the signal that asks to end, and the user that runs the command (empty: this one).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import psutil

PATIENCE = 5  # seconds between asking and killing


def start(user: str, command: list[str]) -> psutil.Popen:
    """The command, in a session of its own, as another user if one is named."""
    other: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    return psutil.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **other)


def end(process: psutil.Popen, asking: signal.Signals) -> None:
    """Ask a process and its descendants to end, then kill what is left of them, and of its process group."""
    family = [process]
    with suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
    for number in (asking, signal.SIGKILL):
        for member in filter(is_alive, family):
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        deadline = time.monotonic() + PATIENCE
        while any(map(is_alive, family)) and time.monotonic() < deadline:
            time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs: one that has ended, and that nobody has asked about yet, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(asking: str, user: str, *command: str) -> int:
    """Run the command until it ends or standard input does; its exit status."""
    process = start(user, list(command))
    while process.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
    end(process, signal.Signals[f"SIG{asking}"])
    return int(process.wait())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
