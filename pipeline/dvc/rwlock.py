"""DVC's locks of files and of the workspace: which processes hold them."""

from __future__ import annotations

import fcntl
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from pipeline.base.processes import is_dvc
from pipeline.dvc.unfinished import EXPS, TMP

RWLOCKS = (TMP / "rwlock", EXPS / "rwlock")


def holders(path: Path) -> dict[int, str] | None:
    """Number and command of the processes that an rwlock names; None if DVC could not read it."""
    lock = _read(path)
    if lock is None:
        return None
    infos = [*lock["write"].values(), *(info for readers in lock["read"].values() for info in readers)]
    return {info["pid"]: plain(info["cmd"]) for info in infos}


def living_holders(path: Path) -> set[psutil.Process]:
    """The processes of DVC that hold an rwlock; another program may have got the number of one that has ended."""
    living = set()
    for pid in holders(path) or ():
        with suppress(psutil.Error, ValueError):
            if is_dvc(process := psutil.Process(pid)):
                living.add(process)
    return living


def preparing() -> str:
    """The command that prepares an experiment: it holds the workspace for that time only. Empty if there is none."""
    lock = _read(EXPS / "rwlock") or {"write": {}}
    return plain(lock["write"].get("workspace", {}).get("cmd", ""))


def free(path: Path) -> None:
    """Remove an rwlock that is damaged or names no living DVC, under the lock that DVC takes to change it."""
    if holders(path) == {}:
        return
    with path.with_name("rwlock.lock").open("a") as guard, suppress(BlockingIOError):
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not living_holders(path):
            names = ", ".join(f"process {pid} ({words})" for pid, words in (holders(path) or {}).items())
            path.unlink(missing_ok=True)
            print(f"removed {path}: {names + ' held it and has ended' if names else 'it was damaged'}")


def plain(words: str) -> str:
    """A command without the paths of Python and DVC."""
    return re.sub(r"^(\S*python\S* )?(\S*/dvc|\S*/dvc/__main__\.py|-m dvc)(?= |$)", "dvc", words)


def _read(path: Path) -> dict[str, Any] | None:
    """What an rwlock says; None if DVC could not read it."""
    try:
        text = path.read_text(encoding="utf-8")
        if text == "{}":  # as DVC leaves it, which need not be loaded to say so
            return {"write": {}, "read": {}}
        from dvc.rwlock import SCHEMA
        from voluptuous import Invalid

        try:
            return SCHEMA(json.loads(text))
        except Invalid:
            return None
    except FileNotFoundError:
        return {"write": {}, "read": {}}
    except ValueError:
        return None
