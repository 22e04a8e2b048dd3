"""Which experiment the user means, and what the store holds of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS
from pipeline.base.git import git
from pipeline.dvc.formats import LOCK_FILE
from pipeline.history.states import state_of
from pipeline.tracking.contents import Point
from pipeline.tracking.run import PATCH_FILE
from pipeline.tracking.store import DIGEST, Store
from pipeline.tracking.view import watched

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """An experiment, and what its MLflow run says of it.

    Attributes:
        name: The experiment's name.
        digest: The experiment's digest.
        commit: That of the DVC experiment, if one was named.
        run_id: The run's id; empty if there is none.
        tags: Of the run.
        points: The metrics of the run.
        patch: How the code that ran differs from the commit that the first line names, if the run keeps it.
        lock: Its dvc.lock, if the run keeps it.
    """

    name: str
    digest: str
    commit: str = ""
    run_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    points: frozenset[Point] = frozenset()
    patch: bytes | None = None
    lock: bytes | None = None


def find(name: str, root: Path) -> Wanted:
    """The experiment that a DVC experiment's name, a run's id or name, or the beginning of a digest names.

    Raises:
        InputError: If there is none, or several.
    """
    lines = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    refs = [line.split(" ", 1) for line in lines if "/exec/" not in line]
    commits = [commit for commit, ref in refs if ref.rpartition("/")[2] == name]
    states = {state.experiment.digest: state for commit in commits if (state := state_of(commit))}
    if states:
        digest, state = _only([*states.items()], [f"digest {digest}" for digest in states], name)
        return replace(_of_experiment(name, digest, root), commit=state.revision)
    runs = _runs(name, root)
    return _only(runs, [f"{run.name} (run {run.run_id})" for run in runs], name)


def artifact(wanted: Wanted, path: str, root: Path) -> bytes | None:
    """What the run shows of a file among the results."""
    prefix = f"{RESULTS}/"
    if not wanted.run_id or not path.startswith(prefix):
        return None

    def read(store: Store) -> bytes | None:
        return next((run.artifact(path.removeprefix(prefix)) for run in store.named(wanted.run_id)), None)

    return watched(root, read)


def _only(experiments: list[T], names: list[str], name: str) -> T:
    if not experiments:
        raise InputError(
            f"no DVC experiment and no run in MLflow's store is called {name}; `make publish ALL=1` shows there what git and "
            "the cache hold"
        )
    if len(experiments) > 1:
        raise InputError(f"{name} may be any of {len(experiments)} experiments; say which: {', '.join(names)}")
    return experiments[0]


def _of_experiment(name: str, digest: str, root: Path) -> Wanted:
    try:
        return replace(next(iter(_runs(digest, root)), Wanted(name, digest)), name=name)
    except InputError as error:
        print(f"warning: nothing can be compared with its run: {error}", file=sys.stderr)
        return Wanted(name, digest)


def _runs(name: str, root: Path) -> list[Wanted]:
    """What the store holds under this name, each experiment once."""

    def read(store: Store) -> list[Wanted]:
        runs = {run.tags[DIGEST]: run for run in store.named(name) if DIGEST in run.tags}
        return [
            Wanted(
                name=run.tags.get("mlflow.runName", run.id),
                digest=digest,
                run_id=run.id,
                tags=run.tags,
                points=frozenset(run.values()),
                patch=run.artifact(PATCH_FILE),
                lock=run.artifact(str(LOCK_FILE)),
            )
            for digest, run in runs.items()
        ]

    return watched(root, read)
