"""One run of a stage: its params, its inputs as they were read, its saved state, and its outputs with their record."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from pipeline import STARTED
from pipeline.base.environment import facts, is_first_process, main_repository
from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS, complete, files_in, is_compiled
from pipeline.base.git import git
from pipeline.base.processes import is_forced
from pipeline.dvc.formats import md5
from pipeline.experiment.records import STAGES, Record, declared, digest, is_code, load_lock, load_record, record_path
from pipeline.experiment.saved import FRESH, Saved, forget, saved_folder
from pipeline.params.file import load, read, sections_of, without_dropped
from pipeline.params.section import Common
from pipeline.tracking import view as tracking

P = TypeVar("P", bound=Common)


@dataclass(frozen=True)
class Job(Generic[P]):
    """What a stage works with.

    Attributes:
        stage: Its name.
        params: The sections of params.yaml that it depends on.
        inputs: Its record, without the files that it will make.
        saved: What it has computed so far.
        view: Its MLflow run.
        source: ``data.path``, for messages of stages that do not depend on it.
        cluster: The address of the Dask scheduler whose workers compute; None for this machine. It decides no byte.
    """

    stage: str
    params: P
    inputs: Record
    saved: Saved
    view: tracking.View | tracking.Silent
    source: str
    cluster: str | None

    @contextmanager
    def outputs(self, *others: Path) -> Iterator[tuple[Path, ...]]:
        """Empty folders for the stage's results and ``others``, which replace those folders' files when the block ends.

        Raises:
            InputError: If an input was edited while the stage ran: DVC would record it beside outputs that were made without.
        """
        folders = (RESULTS / self.stage, *others)
        with complete(*folders) as made:
            yield made
            self._refuse_edits()
            pairs = zip(made, folders, strict=True)
            files = {str(folder / file.name): md5(file) for new, folder in pairs for file in files_in([new])}
            replace(self.inputs, files=files).save(made[0])

    def _refuse_edits(self) -> None:
        changed = self.inputs.changes(declared()[self.stage])
        if changed:
            raise InputError(
                f"{_listed(changed)} changed while the stage ran, so its results are of the old content and would be recorded "
                "as of the new; nothing was written. Run `dvc repro` again, and edit when it has ended"
            )


@contextmanager
def running(stage: str, kind: type[P]) -> Iterator[Job[P]]:
    """Run a stage's work: one process at a time for the same inputs, shown in MLflow.

    Raises:
        InputError: If params.yaml is wrong, or DVC has recorded an earlier stage with inputs that it did not have.
    """
    from pipeline.params.whole import check_params  # of all sections, here, as it can only refuse, and say where to compute

    content, root = read(), main_repository()
    cluster = check_params(content).scheduler
    params = load(content, kind)
    if is_first_process():
        print("".join(f"note: {dropped}\n" for dropped in without_dropped(sections_of(content, kind), kind)[1]), end="")
    stages = declared()
    inputs = replace(stages[stage], read_as=params.model_dump(mode="json", include=set(stages[stage].params)))
    _refuse_newer_code(inputs)
    _refuse_untracked_code(inputs)
    locked = load_lock()
    _refuse_misrecorded(stage, locked)
    for name in locked.keys() - {stage}:
        forget(root, name, digest(locked[name].inputs), made=locked[name].is_on_disk)
    folder = saved_folder(root, stage, digest(inputs.inputs), digest(facts(params.threads_used)))
    saved = Saved(folder, fresh=bool(os.environ.get(FRESH)) or is_forced())
    with _alone(saved, stage), tracking.stage(stage, stages, root, params.threads_used) as view:
        yield Job(stage, params, inputs, saved, view, content["data"]["path"], cluster)


def misrecorded(locked: dict[str, Record]) -> dict[str, list[str]]:
    """Stages whose entry in dvc.lock is of the outputs on disk, but with other inputs than those were made of."""
    found = {}
    for stage in STAGES:
        record, entry = load_record(stage), locked.get(stage)
        if record and entry and _is_of_these_outputs(stage, entry) and record.changes(entry):
            found[stage] = record.changes(entry)
    return found


def _is_of_these_outputs(stage: str, entry: Record) -> bool:
    path = next((Path(out) for out in (str(record_path(stage)), str(RESULTS / stage)) if out in entry.files), None)
    return path is not None and path.exists() and md5(path) == entry.files[str(path)]


def _refuse_misrecorded(stage: str, locked: dict[str, Record]) -> None:
    earlier = STAGES[: STAGES.index(stage)]
    wrong = {name: changed for name, changed in misrecorded(locked).items() if name in earlier}
    for name, changed in wrong.items():
        raise InputError(
            f"dvc.lock says that {name} ran with another {_listed(changed)} than it did: the file was edited as the stage "
            "ended. `make repro` forgets that entry and runs the stage again"
        )


def _refuse_newer_code(inputs: Record) -> None:
    """Refuse code that was edited after this process began to load it: the file says what the process does not do."""
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    sources = files_in([Path(dep) for dep in inputs.deps if is_code(dep)])
    newer = [str(path) for path in sources if str(path.resolve()) in loaded and STARTED < path.stat().st_mtime <= time.time()]
    if newer:
        raise InputError(f"{_listed(newer)} changed while the stage started, so it may run the old code; start it again")


def _refuse_untracked_code(inputs: Record) -> None:
    """Refuse files beside the code that git does not know: DVC hashes them here, and `dvc exp run --temp` leaves them out."""
    folders = [f":(literal){dep}" for dep in inputs.deps if is_code(dep) and Path(dep).is_dir()]
    others = git("ls-files", "--others", "-z", "--", *folders).split("\0") if folders else []
    if untracked := [name for name in others if name and not is_compiled(Path(name))]:
        raise InputError(
            f"{_listed(untracked)} is beside code that the stage depends on and not tracked by git, so that DVC would take it "
            f"for an input that no other checkout has; `git add` it, or move it out of {Path(untracked[0]).parent}/"
        )


@contextmanager
def _alone(saved: Saved, stage: str) -> Iterator[None]:
    if not is_first_process():
        yield
        return
    with saved.held(f"stage {stage}"):
        yield


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
