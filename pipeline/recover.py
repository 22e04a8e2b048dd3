"""Mend what a killed DVC has left behind, and explain what only the user can; to be run before DVC.

DVC 3.67 stops at an rwlock or a dvc.lock that was written by halves, and at an rwlock whose process has ended and whose number
another program has got. Nothing is touched while a DVC process of this repository lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml.error import YAMLError

from pipeline.base.command import run
from pipeline.base.files import from_yaml, write_whole
from pipeline.base.processes import command, is_dvc
from pipeline.record.experiment import git
from pipeline.repair import killed

RWLOCKS = (killed.TMP / "rwlock", killed.EXPS / "rwlock")
GIT_LOCKS = ("index.lock", "HEAD.lock", "refs/stash.lock", "logs/refs/stash.lock")


def main() -> None:
    """Mend and explain, unless DVC runs.

    Raises:
        InputError: If the user's changes are in git's stash since DVC was killed; without them another experiment would run.
    """
    here = list(_processes_in(Path.cwd().resolve()))
    running = {process for process in here if is_dvc(process)} | _living_holders()
    for process in sorted(running, key=lambda process: process.pid):
        print(f"DVC runs in this repository as process {_name(process)}: its locks and files are left as they are")
    if not running:
        _explain_stages(here)
        _restore_dvc_lock()
        _clear_git_locks(here)
        killed.settle_workspace()
        killed.settle_others([_folder(process) for process in here])
        for path in RWLOCKS:
            _free(path)


def _processes_in(root: Path) -> Iterator[psutil.Process]:
    """Those that work in a repository or in its experiments' folders, not in another repository inside it."""
    for process in psutil.process_iter():
        folder = _folder(process)
        if folder.is_relative_to(root) and "daemon" not in command(process):
            owner = next(path for path in (folder, *folder.parents) if path == root or os.path.isdir(path / ".dvc"))
            if owner == root or owner.is_relative_to(root / killed.EXPS):
                yield process


def _folder(process: psutil.Process) -> Path:
    with suppress(psutil.Error):
        return Path(process.cwd())
    return Path("/")


def _name(process: psutil.Process) -> str:
    return f"{process.pid} ({killed.plain(shlex.join(command(process)))})"


def _living_holders() -> set[psutil.Process]:
    return {psutil.Process(pid) for path in RWLOCKS for pid in _holders(path) or () if _is_dvc(pid)}


def _is_dvc(pid: int) -> bool:
    with suppress(psutil.Error, ValueError):
        return is_dvc(psutil.Process(pid))
    return False


def _explain_stages(here: list[psutil.Process]) -> None:
    """Name the stages whose DVC was killed alone."""
    stages = {process.pid: process for process in here if _is_stage(process)}
    for process in stages.values():
        with suppress(psutil.Error):
            if process.ppid() not in stages:
                print(
                    f"process {_name(process)} goes on although its DVC was killed: wait until it ends, or end it with "
                    f"`kill {process.pid}`"
                )


def _is_stage(process: psutil.Process) -> bool:
    """Whether DVC has started it, through a shell; not the shell itself, which waits beside its command if it is dash."""
    with suppress(psutil.Error):
        shell = process.environ().get("SHELL") or "/bin/sh"
        is_shell = command(process)[:1] == [shell] and bool(process.children())
        return "DVC_STAGE" in process.environ() and not is_shell
    return False


def _restore_dvc_lock() -> None:
    """Replace a dvc.lock that DVC could not read, or that breaks off, by the committed one."""
    path, aside = Path("dvc.lock"), killed.TMP / "dvc.lock.damaged"
    if not path.exists() or _is_whole(path.read_text(errors="replace")):
        return
    committed = git("show", "HEAD:./dvc.lock")
    if _is_whole(committed):
        write_whole(path, committed.encode())
        print("dvc.lock was damaged: restored from git as it is in HEAD; what ran since is found in DVC's run-cache")
    else:
        os.replace(path, aside)
        print(f"dvc.lock was damaged, and HEAD has none: moved to {aside}; DVC writes a new one")


def _is_whole(text: str) -> bool:
    try:
        return text.endswith("\n") and all(map(_is_entry, from_yaml(text)["stages"].values()))
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _is_entry(stage: dict[str, Any]) -> bool:
    """Whether nothing breaks off in what dvc.lock says of a stage."""
    files = [*stage.get("deps", ()), *stage.get("outs", ())]
    parts = [stage["cmd"], *stage.values(), *stage.get("params", {}).values()]
    return all(parts) and all(file.get("hash", "path") in file for file in files)


def _clear_git_locks(here: list[psutil.Process]) -> None:
    """Remove the locks of the refs that only DVC writes; name those that git itself uses."""
    if any(Path(word).name == "git" for process in here for word in command(process)[:1]):
        return
    options = [word for name in (*GIT_LOCKS, "refs/exps", "logs/refs/exps") for word in ("--git-path", name)]
    *locks, refs, logs = map(Path, git("rev-parse", *options).splitlines() or [""] * (len(GIT_LOCKS) + 2))
    for path in [*refs.glob("**/*.lock"), *logs.glob("**/*.lock")]:
        path.unlink()
        print(f"removed {path}, at which DVC would have stopped")
    if left := [str(path) for path in locks if path.is_file()]:
        print(f"git and DVC stop at what a killed one has left: unless git runs just now, `rm {' '.join(left)}`")


def _holders(path: Path) -> dict[int, str] | None:
    """Number and command of the processes that an rwlock names; None if DVC could not read it."""
    try:
        content = json.loads(path.read_bytes())
        write, read = content.pop("write", {}), content.pop("read", {})
        infos = [*write.values(), *(info for readers in read.values() for info in readers)]
        return None if content else {int(info["pid"]): killed.plain(info["cmd"]) for info in infos}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _free(path: Path) -> None:
    """Remove an rwlock that is damaged or names no living DVC, under the lock that DVC takes to change it."""
    if _holders(path) == {}:
        return
    with path.with_name("rwlock.lock").open("a") as guard, suppress(BlockingIOError):
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holders = _holders(path) or {}
        if not any(map(_is_dvc, holders)):
            path.unlink(missing_ok=True)
            names = ", ".join(f"process {pid} ({words})" for pid, words in holders.items())
            print(f"removed {path}: {names + ' held it and has ended' if names else 'it was damaged'}")


if __name__ == "__main__":
    sys.exit(run("recover", __doc__, main))
