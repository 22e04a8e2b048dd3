"""Bring MLflow to what the files say: the run of the working directory's experiment, or with --all of every state there is.

A state is one that a branch, a tag, a DVC experiment or the local run-cache holds, and whose files are in DVC's cache. What
stands in the store already is left as it is, so this may be repeated; a store that was lost is rebuilt.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from rich.progress import track

from pipeline.contents import Content
from pipeline.environment import main_repository
from pipeline.errors import InputError
from pipeline.records import STAGES, digest, load_lock
from pipeline.saved import forget, leftovers
from pipeline.stage import command
from pipeline.states import Cache, Missing, git_states, run_cache_states, workspace_content
from pipeline.store import Store
from pipeline.tracking import watched


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    every = arguments.all
    root = main_repository()
    warnings.simplefilter("ignore")  # of MLflow's own
    _forget_recorded(root)
    current = workspace_content()
    if not every and not current.finished:
        raise InputError("nothing to publish: no stage's outputs are those of params.yaml; run `dvc repro` or `dvc pull`")
    print(watched(root, lambda store: _publish(store, current, every=every, root=root)))


def _publish(store: Store, current: Content, *, every: bool, root: Path) -> str:
    lines = []
    if current.finished:
        store.bring(current)
        missing = [stage for stage in STAGES if stage not in current.finished]
        state = f"without {', '.join(missing)}, which `dvc repro` runs" if missing else "complete"
        lines.append(f"MLflow shows {current.experiment.name}, {state}")
    if every:
        found, absent = _all(store, root, but=current.experiment.digest if current.is_complete else "")
        lines.append(f"MLflow shows {found} experiments that git or the run-cache holds beside it")
        if absent:
            lines.append(f"{absent} more have files that are not in DVC's cache; `dvc pull --all-commits` may bring them")
    return "\n".join(lines)


def _all(store: Store, root: Path, but: str) -> tuple[int, int]:
    """Publish the states of git and of the run-cache; how many experiments were, and how many could not be."""
    cache = Cache.of(root)
    done, absent = {but}, set()
    states = [*git_states(), *run_cache_states(cache)]
    for state in track(states, "publishing", transient=True):
        if state.experiment.digest not in done:
            try:
                store.bring(state.content(cache))
                done.add(state.experiment.digest)
            except Missing:
                absent.add(state.experiment.digest)
    return len(done) - 1, len(absent - done)


def _forget_recorded(root: Path) -> None:
    """Remove the saved states of stages whose outputs dvc.lock or the run-cache records."""
    for name, record in load_lock().items():
        forget(root, name, digest(record.inputs))
    if leftovers(root) and (root / ".dvc").is_dir():
        for name, record in Cache.of(root).records():
            forget(root, name, digest(record.inputs))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every state that git, an experiment or the run-cache holds")
    return parser


if __name__ == "__main__":
    sys.exit(command("publish", parser(), main))
