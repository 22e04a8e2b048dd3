"""Experiments that were killed together with their DVC: what each has left is mended, or explained where it is the user's.

``dvc exp run`` leaves HEAD detached and the values of -S in params.yaml; killed while it prepares, it leaves the user's edits
in git's stash, or an experiment that the next ``dvc exp run`` would run as well. ``dvc exp run --temp`` leaves its folder, for
which ``dvc exp show`` calls it running for ever. A worker leaves a task that the queue calls running and never runs again; if
it had just begun, ``dvc exp show`` fails. Only to be called while no DVC process of this repository lives.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml
from pipeline.record.experiment import git

TMP, EXPS = Path(".dvc/tmp"), Path(".dvc/tmp/exps")
STARTED = "refs/exps/stash"  # DVC's refs for experiments that are about to run in the workspace
QUEUED = "refs/exps/celery/stash"  # or wait in the queue
STASHING = 10  # seconds at most from taking the workspace to stashing the user's changes


def settle_workspace() -> None:
    """Explain what a killed ``dvc exp run`` has left in the working directory, and drop what it had prepared.

    Raises:
        InputError: If the user's changes are in git's stash.
    """
    preparing, merge, record = _preparing(), _commit("refs/exps/exec/EXEC_MERGE"), EXPS / "run/workspace"
    branch = _branch_left(preparing, merge)
    if preparing and _is_stashed():
        raise InputError(
            f"`{preparing}` was killed while it had your uncommitted changes in git's stash. Unless you have edited since, "
            f"`git checkout --force {branch or git('branch', '--show-current').strip()} && git stash pop` brings them back "
            "(`git stash drop` if you do not want them). Then run this again"
        )
    if branch:
        print(
            f"a killed `dvc exp run` has left HEAD detached: `git checkout {branch}` goes back to your branch and keeps your "
            "files; `git diff params.yaml` shows what -S has changed there"
        )
    if branch or record.exists():
        repeat = f"`{preparing}`" if preparing else again(merge)
        print(f"an experiment in this folder was killed: {repeat} goes on from where it was")
        _show_changes(merge)
    if _commit(STARTED):
        print(f"dropped an experiment that never started, and that the next would have run too: {again(STARTED)}")
        git("update-ref", "-d", STARTED)
    git("rm", "-qf", "--ignore-unmatch", str(TMP / "repro.dat"))
    shutil.rmtree(record, ignore_errors=True)


def settle_others(used: Sequence[Path]) -> None:
    """Collect, or queue again, what killed workers had taken from the queue; clear away the folders of killed experiments.

    Args:
        used: The folders that living processes work in; what works in the folder of an experiment goes on undisturbed.
    """
    records = dict(_records())
    _settle_queue(records, used)
    names = {Path(record.get("root_dir", "")).name: rev for rev, record in records.items()}
    for folder in [*EXPS.glob("tmp*/"), *EXPS.glob("standalone/tmp*/")]:
        if not _is_used(folder, used):
            rev = names.get(folder.name)
            if folder.parent != EXPS and rev:
                _settle_temporary(rev, records[rev])
            shutil.rmtree(folder)


def again(rev: str, *options: str) -> str:
    """The command that runs an experiment again, by the stash commit that DVC made of it."""
    try:
        _, _, base, name, *_ = git("log", "-1", "--format=%s", rev, "--").strip().split(":")
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


def plain(words: str) -> str:
    """A command without the paths of Python and DVC."""
    return re.sub(r"^(\S*python\S* )?(\S*/dvc|\S*/dvc/__main__\.py|-m dvc)(?= |$)", "dvc", words)


def _preparing() -> str:
    """The command that was killed while it prepared an experiment: it holds the workspace for that time only."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return plain(json.loads((EXPS / "rwlock").read_bytes())["write"]["workspace"]["cmd"])
    return ""


def _branch_left(preparing: str, merge: str) -> str:
    """The branch that HEAD was on before DVC detached it; empty if it is on one, or somebody else has detached it."""
    if git("symbolic-ref", "-q", "HEAD") or not (preparing or merge):
        return ""
    there = _commit("HEAD" if preparing else "refs/exps/exec/EXEC_HEAD")
    moves = re.findall("^checkout: moving from (.*) to (.*)$", git("reflog", "--format=%gs"), re.MULTILINE)
    branch = moves[0][0] if moves and moves[0][1] == there else ""
    return branch if branch and _commit(f"refs/heads/{branch}") else ""


def _show_changes(merge: str) -> None:
    """Let git look anew at the files that DVC has changed: as DVC leaves the index, one of equal size may seem unchanged.

    Git compares seconds; no earlier write has the next one.
    """
    for name in git("diff", "--name-only", "refs/exps/exec/EXEC_HEAD", merge, "--").splitlines() if merge else ():
        with suppress(OSError):
            os.utime(name, (time.time() + 1,) * 2)


def _is_stashed() -> bool:
    """Whether git's last stash was made just after the killed command had taken the workspace."""
    made = git("log", "-1", "--format=%ct", "refs/stash", "--")
    return made != "" and 0 <= int(made) - int((EXPS / "rwlock").stat().st_mtime) <= STASHING


def _records() -> Iterator[tuple[str, dict[str, Any]]]:
    """What DVC wrote about each experiment outside the workspace, by its stash commit; a damaged record goes."""
    for folder in [*EXPS.glob("run/*/"), *EXPS.glob("standalone/run/*/")]:
        if record := _json(folder / f"{folder.name}.run"):
            yield folder.name, record
        else:
            shutil.rmtree(folder)
            print(f"removed {folder}: the record in it was damaged, and `dvc exp show` fails by that")


def _settle_queue(records: dict[str, dict[str, Any]], used: Sequence[Path]) -> None:
    tasks, stashed = list(_tasks()), git("log", "-g", "--format=%H", QUEUED, "--").split()
    for rev in set(stashed) - {rev for _, rev, _ in tasks}:
        print(f"an experiment was killed before it was in the queue: {again(rev, '--queue')}")
        _drop(rev)
    for path, rev, entry in tasks:
        record = records.get(rev, {})
        if path.parent.name == "processed" and not _is_done(path) and not _is_used(record.get("root_dir"), used):
            name = entry["name"] or rev[:7]
            if _is_collected(record):
                path.unlink()
            elif _commit(rev):
                _queue_again(path, rev)
                print(f"queued experiment {name} died with its worker: `dvc queue start` runs it on from where it was")
            else:
                path.unlink()
                print(f"queued experiment {name} died with its worker and cannot be run again, as git has dropped its stash")


def _tasks() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """The queue's messages, waiting or taken by a worker: file, stash commit, and what DVC wrote about it."""
    for path in sorted(EXPS.glob("celery/broker/*/*.celery.msg")):
        with suppress(ValueError, LookupError, TypeError):
            entry = json.loads(base64.b64decode(_json(path)["body"]))[0][0]
            yield path, entry["stash_rev"], entry


def _is_done(message: Path) -> bool:
    return bool(_json(EXPS / "celery/result" / f"celery-task-meta-{_json(message)['headers']['id']}"))


def _queue_again(message: Path, rev: str) -> None:
    """What `dvc exp run --queue` does: a stash commit in the queue's ref, and a message that names it."""
    if rev not in git("log", "-g", "--format=%H", QUEUED, "--").split():
        subject = git("log", "-1", "--format=%s", rev, "--").strip()
        git("update-ref", "--create-reflog", "-m", f"commit: {subject}", QUEUED, rev)
    os.replace(message, EXPS / "celery/broker/in" / message.name)


def _drop(rev: str) -> None:
    """Remove a stash commit from the queue's ref, as `git stash drop` would from its own."""
    stashed = git("log", "-g", "--format=%H", QUEUED, "--").split()
    git("reflog", "delete", "--rewrite", "--updateref", f"{QUEUED}@{{{stashed.index(rev)}}}")
    if len(stashed) == 1:
        git("update-ref", "-d", QUEUED)


def _settle_temporary(rev: str, record: dict[str, Any]) -> None:
    if not _is_collected(record):
        print(
            f"experiment {record.get('name')} was killed, and its temporary folder is removed: "
            f"{again(rev, '--temp')} goes on from where it was"
        )
    for place in ("run", "standalone/run"):
        shutil.rmtree(EXPS / place / rev, ignore_errors=True)


def _is_collected(record: dict[str, Any]) -> bool:
    """Fetch an experiment that had finished in its folder; whether there was one."""
    ref = record.get("result_ref")
    if ref:
        git("fetch", "-q", record["git_url"], f"{ref}:{ref}")
    if not ref or not _commit(ref):
        return False
    print(f"experiment {record.get('name')} had finished when its DVC was killed: `dvc exp show` lists it now")
    return True


def _is_used(folder: str | Path | None, used: Sequence[Path]) -> bool:
    return folder is not None and any(path.is_relative_to(Path(folder).resolve()) for path in used)


def _commit(name: str) -> str:
    return git("rev-parse", "-q", "--verify", f"{name}^{{commit}}").strip()


def _json(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it is damaged or not there."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}
