"""A git worktree that holds the code of an earlier state, beside the working directory.

Changes that come from a store are not trusted: they stay inside the worktree, and none of it is executed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.base.files import write_whole
from pipeline.dvc.formats import LOCK_FILE


@dataclass(frozen=True)
class Source:
    """Where a state can be had from.

    Attributes:
        commit: What is checked out.
        patch: What is changed then, for ``git apply``, after a first line.
        lock: The dvc.lock, where it is not the commit's.
    """

    commit: str
    patch: bytes = b""
    lock: bytes = b""


@contextmanager
def worktree(folder: Path, source: Source) -> Iterator[None]:
    """Check out the source's code; where the block fails, nothing of it is left.

    Raises:
        InputError: If the folder is taken, the commit is not here, or the patch does not apply or leads outside.
    """
    refuse_taken(folder)
    try:
        _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{source.commit}^{{commit}}")
    except InputError:
        raise InputError(
            f"its commit {source.commit} is not in this repository; `git fetch` it from where the run was made"
        ) from None
    try:
        _git("worktree", "add", "--quiet", "--force", "--detach", str(folder), source.commit)  # forced: over a stale entry
        if source.patch.partition(b"\n")[2].strip():
            _apply(folder, source.patch)
        if source.lock:
            write_whole(folder / LOCK_FILE, source.lock)
        yield
    except BaseException:
        with suppress(InputError):
            _git("worktree", "remove", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(InputError):
            _git("worktree", "prune")
        raise


def refuse_taken(folder: Path) -> None:
    """Refuse a folder to restore to that holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already; choose another folder with --into, or remove it: an earlier restored state goes by "
            f"`git worktree remove --force {folder}`"
        )


def _apply(folder: Path, patch: bytes) -> None:
    """Apply changes; git itself refuses those outside the repository or in .git."""
    _git("apply", "--whitespace=nowarn", "-", folder=folder, content=patch)
    for name in _git("ls-files", "--modified", "--others", "-z", folder=folder).split("\0"):
        if (folder / name).is_symlink() or name.startswith(".dvc/"):
            raise InputError(f"the stored changes make {name} a link or change DVC's settings; they were refused")


def _git(*arguments: str, folder: Path | None = None, content: bytes = b"") -> str:
    """What git prints; no hook of the repository is run."""
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    done = subprocess.run(command, cwd=folder, input=content, capture_output=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="surrogateescape")
