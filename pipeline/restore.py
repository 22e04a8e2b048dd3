"""Restore the state of an experiment in a folder of its own: code, params, data, model and results as its run had them.

The state comes from the commit (of a branch, a tag, the history or a DVC experiment) whose dvc.lock is the experiment's; where
there is none, from the run's commit and the changes and the dvc.lock that the run keeps. The working directory is not touched.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.base.command import command
from pipeline.base.environment import facts, main_repository
from pipeline.base.errors import InputError
from pipeline.experiment.records import Record
from pipeline.history.checkout import check, fill
from pipeline.history.selection import Wanted, artifact, find
from pipeline.history.states import git_states
from pipeline.history.verify import verify
from pipeline.history.worktree import Source, refuse_taken, worktree
from pipeline.tracking.run import PATCH_FILE

NEXT_STEPS = """
  cd {path}
  dvc repro                 # executes nothing until you edit something; new runs go to an mlflow.db there
and when you are done with it, here:
  git worktree remove --force {path}"""


def main(arguments: argparse.Namespace) -> None:
    """Run the command."""
    warnings.simplefilter("ignore")  # of MLflow's own
    root = main_repository()
    if not (root / ".dvc").is_dir():
        raise InputError(f"{root} is no repository of DVC's; run from the repository's root")
    wanted = find(arguments.name, root)
    beside = root.with_name(f"{root.name}-" + re.sub(r"[^\w.-]+", "-", wanted.name))
    folder = (arguments.into or beside).resolve()
    refuse_taken(folder)
    source, locked = restored(wanted, folder, root)
    print(f"restored {wanted.name} from {_described(source)} into {folder}")
    if wanted.run_id:
        print(f"model and data have the md5 that run {wanted.run_id} says, and every file that of its dvc.lock")
    else:
        print("every file has the md5 that its dvc.lock says; there was no run in MLflow to compare with")
    print("\n".join(_environment(wanted.tags, locked)))
    print(NEXT_STEPS.format(path=shlex.quote(str(folder))), flush=True)
    if arguments.verify:
        print(verify(folder, wanted.points))


def restored(wanted: Wanted, folder: Path, root: Path) -> tuple[Source, dict[str, Record]]:
    """Make the folder from the first source that holds what is wanted.

    Returns:
        The source, and the stages as its dvc.lock has them.

    Raises:
        InputError: If none does: what each of them lacks.
    """
    problems: list[str] = []
    for source in _sources(wanted, problems):
        try:
            with worktree(folder, source):
                locked = fill(folder, root, lambda path: artifact(wanted, path, root))
                check(folder, locked, wanted.digest)
                _compare(locked, wanted.tags)
                return source, locked
        except InputError as error:
            problems.append(f"from {_described(source)}: {error}")
    listed = "\n".join(f"  {problem}" for problem in problems)
    raise InputError(f"{wanted.name} cannot be restored, and nothing of it was left behind:\n{listed}")


def _sources(wanted: Wanted, problems: list[str]) -> Iterator[Source]:
    """Where the state may be had from, the best first; at last, why not from what the run keeps."""
    if wanted.commit:
        yield Source(wanted.commit)
    for state in git_states(mentioning=wanted.tags.get("model.md5", "")):
        if state.experiment.digest == wanted.digest and state.revision != wanted.commit:
            yield Source(state.revision)
    clean = wanted.tags.get("mlflow.source.git.commit", "") if wanted.tags.get("git.dirty") == "false" else ""
    if wanted.lock is None:
        unfinished = f"its run {wanted.run_id} keeps none, as not all its stages have finished"
        why = unfinished if wanted.run_id else "MLflow has no run of it"
        problems.append(f"no other commit has its dvc.lock, and {why}; `dvc repro` with its params and code makes it")
        return
    if clean:
        yield Source(clean, lock=wanted.lock)
    if wanted.patch is not None:
        base = re.match(rb"commit ([0-9a-f]{40})\n", wanted.patch)
        yield Source(base[1].decode() if base else "unknown", wanted.patch, wanted.lock)
    elif not clean:
        problems.append(
            f"no commit has its dvc.lock, its code was not that of a commit, and the changes are missing (the run's artifact "
            f"{PATCH_FILE}); if you have the files as they were, commit them with their dvc.lock and restore again"
        )


def _compare(locked: Mapping[str, Record], tags: Mapping[str, str]) -> None:
    """Refuse a model or data that are not those of the run; what is in the folder has the md5 that dvc.lock says."""
    prepare = locked["prepare"]
    held = {
        "model.md5": locked["train"].files.get("models/model.safetensors"),
        "data.md5": prepare.deps[prepare.params["data"]["path"]],
    }
    for tag, md5 in held.items():
        if tags.get(tag, md5) != md5:
            raise InputError(f"the {tag.removesuffix('.md5')} has the md5 {md5}, but the run's tag {tag} says {tags[tag]}")


def _environment(tags: Mapping[str, str], locked: Mapping[str, Record]) -> Iterator[str]:
    """How this machine differs from that of the run, a line each."""
    import torch  # noqa: F401  # its build is among the facts

    told = {name.removeprefix("machine."): fact for name, fact in tags.items() if name.startswith("machine.")}
    then = _by_package({name: fact for name, fact in told.items() if name != "workers"})  # whose number decides no byte
    now = _by_package(facts(locked["train"].params.get("threads")))
    different = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if not then:
        yield "environment of the run: unknown (nothing was recorded, or the store was rebuilt since)"
    elif not different:
        yield "environment: as the run's"
    else:
        yield "environment: not that of the run, so the same inputs may give other bytes here"
        yield from (f"  {name}: {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now" for name in different)


def _by_package(machine: Mapping[str, str]) -> dict[str, str]:
    """The facts of a machine, with each package's version as one of them."""
    packages = [part.partition(" ") for part in machine.get("packages", "").split(", ") if part]
    others = {name: fact for name, fact in machine.items() if name != "packages"}
    return others | {name: version for name, _, version in packages}


def _described(source: Source) -> str:
    kept = [what for what, content in (("the changes", source.patch), ("the dvc.lock", source.lock)) if content]
    return f"commit {source.commit[:12]}" + (f" with {' and '.join(kept)} that the run keeps" if kept else "")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a run's id or name in MLflow, a DVC experiment's name, or the beginning of a digest")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="where to; by default beside this repository")
    parser.add_argument("--verify", action="store_true", help="evaluate there again, and compare every metric")
    return parser


if __name__ == "__main__":
    sys.exit(command("restore", parser(), main))
