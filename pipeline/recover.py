"""Mend what a killed DVC has left behind, and explain what only the user can; to be run before DVC.

DVC 3.67 stops at an rwlock or a dvc.lock that was written by halves, and at an rwlock whose process has ended and whose number
another program has got. Nothing is touched while a DVC process of this repository lives.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.base.command import run
from pipeline.base.files import write_whole
from pipeline.base.git import git
from pipeline.base.processes import command, is_dvc
from pipeline.dvc.formats import LOCK_FILE, is_whole_lock
from pipeline.dvc.unfinished import EXPS, RWLOCKS, TMP, free, living_holders, plain
from pipeline.recovery import killed

GIT_LOCKS = ("index.lock", "HEAD.lock", "refs/stash.lock", "logs/refs/stash.lock")


def main() -> None:
    """Mend and explain, unless DVC runs.

    Raises:
        InputError: If the user's changes are in git's stash since DVC was killed; without them another experiment would run.
    """
    here = list(processes_in(Path.cwd().resolve()))
    running = {process for process in here if is_dvc(process)}.union(*map(living_holders, RWLOCKS))
    for process in sorted(running, key=lambda process: process.pid):
        print(f"DVC runs in this repository as process {_name(process)}: its locks and files are left as they are")
    if not running:
        explain_stages(here)
        restore_dvc_lock()
        clear_git_locks(here)
        killed.settle_workspace()
        killed.settle_others([_folder(process) for process in here])
        for path in RWLOCKS:
            free(path)


def processes_in(root: Path) -> Iterator[psutil.Process]:
    """The processes that work in a repository or in its experiments' folders, not in another repository inside it."""
    for process in psutil.process_iter():
        folder = _folder(process)
        if folder.is_relative_to(root) and "daemon" not in command(process):
            owner = next(path for path in (folder, *folder.parents) if path == root or os.path.isdir(path / ".dvc"))
            if owner == root or owner.is_relative_to(root / EXPS):
                yield process


def _folder(process: psutil.Process) -> Path:
    with suppress(psutil.Error):
        return Path(process.cwd())
    return Path("/")


def _name(process: psutil.Process) -> str:
    return f"{process.pid} ({plain(shlex.join(command(process)))})"


def explain_stages(here: list[psutil.Process]) -> None:
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


def restore_dvc_lock() -> None:
    """Replace a dvc.lock that DVC could not read, or that breaks off, by the committed one."""
    path, aside = LOCK_FILE, TMP / "dvc.lock.damaged"
    if not path.exists() or is_whole_lock(path.read_text(errors="replace")):
        return
    committed = git("show", "HEAD:./dvc.lock")
    if is_whole_lock(committed):
        write_whole(path, committed.encode())
        print("dvc.lock was damaged: restored from git as it is in HEAD; what ran since is found in DVC's run-cache")
    else:
        os.replace(path, aside)
        print(f"dvc.lock was damaged, and HEAD has none: moved to {aside}; DVC writes a new one")


def clear_git_locks(here: list[psutil.Process]) -> None:
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


if __name__ == "__main__":
    sys.exit(run("recover", __doc__, main))
