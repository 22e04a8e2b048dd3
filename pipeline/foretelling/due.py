"""Which stages `dvc repro` will run, and which it leaves alone or restores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.dvc.repository import Cache
from pipeline.experiment.records import Record, declared, load_lock, locked_record


def stages_due() -> list[str]:
    """The stages that have neither run with the inputs that they have now, nor left outputs that DVC's caches hold.

    Raises:
        InputError: If dvc.yaml is missing, or DVC cannot say where its cache is.
    """
    due, made = list[str](), dict[str, str]()
    locked = load_lock()
    for name, stage in declared().items():
        now = replace(stage, deps={dep: made.get(dep, md5) for dep, md5 in stage.deps.items()})
        before = next((record for record in _known(locked.get(name)) if record.inputs == now.inputs), None)
        made |= before.files if before else dict.fromkeys(stage.outs, "")
        due += [] if before else [name]
    return due


def _known(locked: Record | None) -> Iterator[Record]:
    """What is known of runs of a stage whose outputs are there: of the last, and, if need be, of all in the run-cache."""
    if locked and locked.is_on_disk():
        yield locked
    if not Path(".dvc").is_dir():
        return
    cache = Cache.at(Path.cwd())
    records = [locked_record(entry) for _, entry in cache.entries()]
    yield from (record for record in filter(None, [locked, *records]) if cache.holds(record.files))
