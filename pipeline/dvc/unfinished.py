"""DVC's experiments and its locks: what it keeps of those that are prepared, queued or at work, and the names of all."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from pipeline.base.git import git
from pipeline.base.processes import is_dvc

TMP, EXPS = Path(".dvc/tmp"), Path(".dvc/tmp/exps")
RWLOCKS = (TMP / "rwlock", EXPS / "rwlock")  # who uses which files, and who the workspace
ARGUMENTS = TMP / "repro.dat"  # of the command, which DVC adds to git's index
IN_WORKSPACE = EXPS / "run/workspace"  # the record of an experiment that works in the workspace
STARTED = "refs/exps/stash"  # the stash of experiments that are about to run in the workspace
EXEC_HEAD, EXEC_MERGE = "refs/exps/exec/EXEC_HEAD", "refs/exps/exec/EXEC_MERGE"  # where one began, and its stash commit
INTERNAL = {"apply", "celery", "exec", "stash", "temp"}  # what else lies in refs/exps


def experiments(*options: str) -> list[tuple[str, str]]:
    """Commit and name of each experiment, of those that ``git for-each-ref`` finds with these options."""
    lines = git("for-each-ref", *options, "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    refs = [(commit, ref.split("/")) for commit, _, ref in (line.partition(" ") for line in lines)]
    return [(commit, parts[-1]) for commit, parts in refs if parts[2] not in INTERNAL]


def stashed(rev: str) -> tuple[str, str]:
    """The commit that an experiment builds on, and its name, by the stash commit that DVC made of it.

    Raises:
        ValueError: If it is no such commit.
    """
    _, _, base, name, *_ = git("log", "-1", "--format=%s", rev, "--").strip().split(":")
    return base, name


def folders() -> list[Path]:
    """The folders in which experiments work: of the queue's, and of those of ``dvc exp run --temp``."""
    return [*EXPS.glob("tmp*/"), *EXPS.glob("standalone/tmp*/")]


def damaged() -> Iterator[Path]:
    """The files of the queue that were written by halves."""
    for path in [*EXPS.glob("celery/broker/*/*.msg"), *EXPS.glob("celery/result/celery-task-meta-*")]:
        with suppress(OSError):
            try:
                json.loads(path.read_bytes())
            except ValueError:
                yield path


def holders(path: Path) -> dict[int, str] | None:
    """Number and command of the processes that an rwlock names; None if DVC could not read it."""
    lock = _rwlock(path)
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
    lock = _rwlock(EXPS / "rwlock") or {"write": {}}
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


def _rwlock(path: Path) -> dict[str, Any] | None:
    """What an rwlock says; None if DVC could not read it."""
    content = path.read_bytes() if path.exists() else b"{}"
    if content == b"{}":  # as DVC leaves it, which need not be loaded for that
        return {"write": {}, "read": {}}
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        return SCHEMA(json.loads(content))
    except (ValueError, Invalid):
        return None


class Unfinished:
    """The experiments outside the workspace that wait or work, by the stash commit that DVC made of each.

    Args:
        repo: The repository, opened by DVC.
    """

    def __init__(self, repo: Any) -> None:
        logging.getLogger("kombu").setLevel(logging.ERROR)  # it warns of a queue in files that it has no host
        self._queue, self._temporary = repo.experiments.celery_queue, repo.experiments.tempdir_queue

    def records(self) -> Iterator[tuple[str, Any]]:
        """What DVC wrote about each experiment that has begun, or the folder of what it wrote, if that is damaged."""
        from dvc.exceptions import DvcException
        from dvc.repo.experiments.executor.base import ExecutorInfo

        for queue in (self._queue, self._temporary):
            for rev in [*queue.proc]:
                path = queue.get_infofile_path(rev)
                try:
                    yield rev, ExecutorInfo.load_json(path)
                except (OSError, DvcException, TypeError, AttributeError):
                    yield rev, Path(os.path.relpath(path)).parent

    def forget_record(self, rev: str) -> None:
        """Remove what DVC wrote about an experiment as it began."""
        for queue in (self._queue, self._temporary):
            del queue.proc[rev]

    def lost(self) -> list[str]:
        """The stash commits that no task of the queue names."""
        named = {entry.stash_rev for entry in self._queue.iter_queued()}
        named |= {entry.stash_rev for _, entry in self._queue._iter_processed()}
        return [rev for rev in self._queue.stash.stash_revs if rev not in named]

    def drop(self, rev: str) -> None:
        """Remove a commit from the queue's stash."""
        self._queue.stash.remove_revs([self._queue.stash.stash_revs[rev]])

    def taken(self) -> list[tuple[Any, Any]]:
        """The tasks that workers have taken and not ended: the queue's message, and the experiment."""
        result, tasks = self._queue.celery.AsyncResult, self._queue._iter_processed()
        return [(message, entry) for message, entry in tasks if not result(message.headers["id"]).ready()]

    def queue_again(self, message: Any, rev: str) -> None:
        """Queue a task that a worker had taken: a stash commit in the queue's ref, and a message that names it."""
        from dvc.repo.experiments.queue.tasks import run_exp

        if rev not in self._queue.stash.stash_revs:
            subject = git("log", "-1", "--format=%s", rev, "--").strip()
            self._queue.scm.set_ref(self._queue.ref, rev, message=f"commit: {subject}")
        arguments, options, _ = message.decode()
        self._queue.celery.signature(run_exp.s(*arguments, **options)).delay()
        self.end(message)

    def end(self, message: Any) -> None:
        """Remove the message of a task that a worker had taken."""
        self._queue.celery.purge(message.delivery_tag)
