"""Bring MLflow to what the files say: the run of the working directory's experiment, or with --all of every state there is.

A state is one that a branch, a tag, a DVC experiment or the local run-cache holds, and whose files are in DVC's cache. What
stands in the store already is left as it is, so this may be repeated; a store that was lost is rebuilt.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path

from rich.progress import track

from pipeline.base.command import command
from pipeline.base.environment import main_repository
from pipeline.base.errors import InputError
from pipeline.dvc.repository import Cache, Missing
from pipeline.experiment.records import STAGES, Record, digest, load_lock
from pipeline.experiment.saved import forget, leftovers
from pipeline.history.states import git_states, run_cache_records, run_cache_states, workspace_content
from pipeline.tracking.contents import Content
from pipeline.tracking.store import Store
from pipeline.tracking.view import watched


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    every = arguments.all
    root = main_repository()
    warnings.simplefilter("ignore")  # of MLflow's own
    if leftovers(root) and (root / ".dvc").is_dir():
        cache = Cache.at(root)
        for name, record in [*load_lock().items(), *run_cache_records(cache)]:  # whose outputs make a saved state useless
            forget(root, name, digest(record.inputs), made=partial(_can_be_had, record, cache))
    current = workspace_content()
    if not every and not current.finished:
        raise InputError("nothing to publish: no stage's outputs are those of params.yaml; run `dvc repro` or `dvc pull`")
    print(watched(root, lambda store: show(store, current, every=every, root=root)))


def show(store: Store, current: Content, *, every: bool, root: Path) -> str:
    """Publish the current state, and with ``every`` all others before it; return what there is to say of it."""
    lines = []
    others, absent = show_others(store, current, root) if every else (0, 0)
    if current.finished:
        store.bring(current)
        missing = [stage for stage in STAGES if stage not in current.finished]
        state = f"without {', '.join(missing)}, which `dvc repro` runs" if missing else "complete"
        lines.append(f"MLflow shows {current.experiment.name}, {state}")
    store.end_abandoned(but=current.experiment.digest)
    if every:
        lines.append(f"MLflow shows {others} experiments that git or the run-cache holds beside it")
        if absent:
            lines.append(f"{absent} more have files that are not in DVC's cache; `dvc pull --all-commits` may bring them")
    return "\n".join(lines)


def show_others(store: Store, current: Content, root: Path) -> tuple[int, int]:
    """Publish the states of git and of the run-cache; return how many beside the current one were, and how many could not be.

    The current one is published in its turn, as the first run of a training counts as that which trained.
    """
    cache = Cache.at(root)
    done, absent = set(), set()
    own = {current.experiment.digest: current} if current.is_complete else {}
    states = list(git_states())
    states += run_cache_states(cache, states)
    for state in track(states, "publishing", transient=True):
        name = state.experiment.digest
        if name not in done:
            try:
                store.bring(own.get(name) or state.content(cache))
                done.add(name)
            except Missing:
                absent.add(name)
    return len(done - own.keys()), len(absent - done)


def _can_be_had(record: Record, cache: Cache) -> bool:
    return cache.holds(record.files) or record.is_on_disk()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every state that git, an experiment or the run-cache holds")
    return parser


if __name__ == "__main__":
    sys.exit(command("publish", parser(), main))
