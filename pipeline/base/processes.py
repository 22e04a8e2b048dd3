"""Which processes drive a stage, and whether they are still there."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import psutil


def dvc_parents() -> list[psutil.Process]:
    """The DVC processes that this one runs under, the nearest first."""
    return [parent for parent in psutil.Process().parents() if is_dvc(parent)]


def is_dvc(process: psutil.Process) -> bool:
    """Whether a process is DVC: ``dvc ...``, ``python -m dvc ...``, or a worker of its queue."""
    words = command(process)[:4]
    return any(Path(word).name == "dvc" for word in words) or words[1:3] == ["-m", "dvc"]


def is_forced() -> bool:
    """Whether DVC was told to run the stage anew (``-f``, ``--force``), which it does not say to its stages."""
    return any(
        word == "--force" or re.fullmatch(r"-[a-zA-Z]*f[a-zA-Z]*", word) for dvc in dvc_parents() for word in command(dvc)
    )


def command(process: psutil.Process) -> list[str]:
    """The words of a process's command; none if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def this_process() -> str:
    """The process that drives this one, DVC or the stage itself: host, process id and start time."""
    owner = (dvc_parents() or [psutil.Process()])[-1]
    return f"{socket.gethostname()}:{owner.pid}:{owner.create_time():.0f}"


def is_gone(process: str) -> bool:
    """Whether a process, as `this_process` names it, has ended; of other hosts nothing is known."""
    host, _, rest = process.partition(":")
    number, _, started = rest.partition(":")
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(number)).create_time():.0f}" != started
    except (psutil.NoSuchProcess, ValueError):
        return True
