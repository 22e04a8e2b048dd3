"""Experiments that were killed together with their DVC: what each has left is mended, or explained where it is the user's.

``dvc exp run`` leaves HEAD detached and the values of -S in params.yaml; killed while it prepares, it leaves the user's edits
in git's stash, or an experiment that the next ``dvc exp run`` would run as well. ``dvc exp run --temp`` leaves its folder, for
which ``dvc exp show`` calls it running for ever. A worker leaves a task that the queue calls running and never runs again; if
it had just begun, ``dvc exp show`` fails. Only to be called while no DVC process of this repository lives.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml
from pipeline.base.git import git
from pipeline.dvc.repository import opened
from pipeline.dvc.unfinished import (
    ARGUMENTS,
    EXEC_HEAD,
    EXEC_MERGE,
    EXPS,
    IN_WORKSPACE,
    STARTED,
    Unfinished,
    damaged,
    folders,
    preparing,
    stashed,
)

STASHING = 10  # seconds at most from taking the workspace to stashing the user's changes


def settle_workspace() -> None:
    """Explain what a killed ``dvc exp run`` has left in the working directory, and drop what it had prepared.

    Raises:
        InputError: If the user's changes are in git's stash.
    """
    preparation, merge = preparing(), _commit(EXEC_MERGE)
    branch = _branch_left(preparation, merge)
    made = git("log", "-1", "--format=%ct", "refs/stash", "--") if preparation else ""
    if made and 0 <= int(made) - int((EXPS / "rwlock").stat().st_mtime) <= STASHING:
        raise InputError(
            f"`{preparation}` was killed while it had your uncommitted changes in git's stash. Unless you have edited since, "
            f"`git checkout --force {branch or git('branch', '--show-current').strip()} && git stash pop` brings them back "
            "(`git stash drop` if you do not want them). Then run this again"
        )
    if branch:
        print(
            f"a killed `dvc exp run` has left HEAD detached: `git checkout {branch}` goes back to your branch and keeps your "
            "files; `git diff params.yaml` shows what -S has changed there"
        )
    if branch or IN_WORKSPACE.exists():
        repeat = f"`{preparation}`" if preparation else again(merge)
        print(f"an experiment in this folder was killed: {repeat} goes on from where it was")
        if merge:
            _show_changes(merge)
    if _commit(STARTED):
        print(f"dropped an experiment that never started, and that the next would have run too: {again(STARTED)}")
        git("update-ref", "-d", STARTED)
    git("rm", "-qf", "--ignore-unmatch", str(ARGUMENTS))
    shutil.rmtree(IN_WORKSPACE, ignore_errors=True)


def settle_others(used: Sequence[Path]) -> None:
    """Collect, or queue again, what killed workers had taken from the queue; clear away the folders of killed experiments.

    Args:
        used: The folders that living processes work in; what works in the folder of an experiment goes on undisturbed.
    """
    if not EXPS.is_dir():
        return
    for path in damaged():
        path.unlink()
        print(f"removed {path}: it was damaged, and `dvc exp show` fails by that")
    with opened(Path(), "read what it keeps of experiments") as repo:
        unfinished, records = Unfinished(repo), {}
        for rev, record in unfinished.records():
            if isinstance(record, Path):
                unfinished.forget_record(rev)
                print(f"removed {record}: the record in it was damaged, and `dvc exp show` fails by that")
            else:
                records[rev] = record
        settle_queue(unfinished, records, used)
        settle_folders(unfinished, records, used)


def settle_queue(unfinished: Unfinished, records: dict[str, Any], used: Sequence[Path]) -> None:
    """Queue again what died with its worker, unless it had finished; name what never reached the queue."""
    for rev in unfinished.lost():
        print(f"an experiment was killed before it was in the queue: {again(rev, '--queue')}")
        unfinished.drop(rev)
    for message, entry in unfinished.taken():
        rev = entry.stash_rev
        died = f"queued experiment {entry.name or rev[:7]} died with its worker"
        if rev in records and _is_used(records[rev].root_dir, used):
            continue
        if rev in records and _is_collected(records[rev]):
            unfinished.end(message)
        elif _commit(rev):
            unfinished.queue_again(message, rev)
            print(f"{died}: `dvc queue start` runs it on from where it was")
        else:
            unfinished.end(message)
            print(f"{died} and cannot be run again, as git has dropped its stash")


def settle_folders(unfinished: Unfinished, records: dict[str, Any], used: Sequence[Path]) -> None:
    """Clear away the folders in which no process works; of those of ``dvc exp run --temp``, collect or name the experiment."""
    revs = {Path(record.root_dir).name: rev for rev, record in records.items()}
    for folder in folders():
        if _is_used(folder, used):
            continue
        rev = revs.get(folder.name)
        if rev and records[rev].location == "tempdir":
            if not _is_collected(records[rev]):
                print(
                    f"experiment {records[rev].name} was killed, and its temporary folder is removed: "
                    f"{again(rev, '--temp')} goes on from where it was"
                )
            unfinished.forget_record(rev)
        shutil.rmtree(folder)


def again(rev: str, *options: str) -> str:
    """The command that runs an experiment again, by the stash commit that DVC made of it."""
    try:
        base, name = stashed(rev)
        old, new = (_flat(from_yaml(git("show", f"{commit}:./params.yaml"))) for commit in (base, rev))
    except (ValueError, YAMLError):
        return f"the same `{shlex.join(['dvc', 'exp', 'run', *options])}`"
    changes = [f"{'' if key in old else '+'}{key}={new[key]}" for key in new if old.get(key) != new[key]]
    changes += [f"~{key}" for key in old if key not in new]
    sets = [word for change in changes for word in ("-S", change)]
    return f"`{shlex.join(['dvc', 'exp', 'run', *options, '-n', name, *sets])}`"


def _flat(content: Any, path: str = "") -> dict[str, str]:
    """Dotted paths of settings, with their values as -S takes them."""
    if not isinstance(content, dict) or not content:
        return {path: content if isinstance(content, str) else json.dumps(content)}
    parts = [_flat(part, f"{path}.{name}" if path else str(name)) for name, part in content.items()]
    return {key: value for part in parts for key, value in part.items()}


def _branch_left(preparation: str, merge: str) -> str:
    """The branch that HEAD was on before DVC detached it; empty if it is on one, or somebody else has detached it."""
    if git("symbolic-ref", "-q", "HEAD") or not (preparation or merge):
        return ""
    there = _commit("HEAD" if preparation else EXEC_HEAD)
    moves = re.findall("^checkout: moving from (.*) to (.*)$", git("reflog", "--format=%gs"), re.MULTILINE)
    branch = moves[0][0] if moves and moves[0][1] == there else ""
    return branch if branch and _commit(f"refs/heads/{branch}") else ""


def _show_changes(merge: str) -> None:
    """Let git look anew at the files that DVC has changed: as DVC leaves the index, one of equal size may seem unchanged.

    Git compares seconds; no earlier write has the next one.
    """
    for name in git("diff", "--name-only", EXEC_HEAD, merge, "--").splitlines():
        with suppress(OSError):
            os.utime(name, (time.time() + 1,) * 2)


def _is_collected(record: Any) -> bool:
    """Fetch an experiment that had finished in its folder; whether there was one."""
    ref = record.result_ref
    if ref:
        git("fetch", "-q", record.git_url, f"{ref}:{ref}")
    if not ref or not _commit(ref):
        return False
    print(f"experiment {record.name} had finished when its DVC was killed: `dvc exp show` lists it now")
    return True


def _is_used(folder: str | Path, used: Sequence[Path]) -> bool:
    return any(path.is_relative_to(Path(folder).resolve()) for path in used)


def _commit(name: str) -> str:
    return git("rev-parse", "-q", "--verify", f"{name}^{{commit}}").strip()
