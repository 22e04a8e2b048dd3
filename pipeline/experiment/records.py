"""What each stage was given and what it made of it: the record among its outputs, and the experiment's digest.

A record says the same as the stage's entry in dvc.lock, which DVC writes only after the stage has ended, from what the files
are by then. The record is written by the stage itself, from what it read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS, from_yaml, to_json
from pipeline.dvc.formats import LOCK_FILE, PIPELINE_FILE, StageEntry, content_md5, folder_md5, lock_file, md5
from pipeline.params.file import PARAMS_FILE

STAGES = ("prepare", "train", "evaluate", "generate")


@dataclass(frozen=True)
class Record:
    """One run of a stage.

    Attributes:
        cmd: Its command.
        params: The sections of params.yaml that it depends on.
        deps: md5 of each file or folder that it depends on.
        outs: The files and folders that it makes, as dvc.yaml names them.
        files: md5 of each file that it made; empty before it has run.
        read_as: The params as its version read them, with its defaults for what params.yaml leaves open; empty where no record
            says so.
    """

    cmd: str
    params: dict[str, Any]
    deps: dict[str, str]
    outs: list[str]
    files: dict[str, str] = field(default_factory=dict)
    read_as: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Any]:
        """What its outputs are a function of."""
        return {"cmd": self.cmd, "params": self.params, "deps": self.deps}

    def changes(self, other: Record) -> list[str]:
        """The inputs that differ in ``other``: paths, and sections of params.yaml."""
        params = [f"{PARAMS_FILE}: {name}" for name in _differing(self.params, other.params)]
        return ["cmd"] * (self.cmd != other.cmd) + params + _differing(self.deps, other.deps)

    def is_intact(self) -> bool:
        """Whether every file that it made is on disk as it was made."""
        return all(Path(path).is_file() and md5(Path(path)) == was for path, was in self.files.items())

    def is_on_disk(self) -> bool:
        """Whether the outputs of a stage, as dvc.lock has them, are in the working directory."""
        return all(Path(out).exists() and md5(Path(out)) == was for out, was in self.files.items())

    def entry(self, stage: str) -> StageEntry:
        """The stage as DVC would describe it."""
        files = {str(record_path(stage)): content_md5(self.content())} | self.files  # a record cannot hold its own md5
        inside = {
            out: {path.removeprefix(f"{out}/"): m for path, m in files.items() if path.startswith(f"{out}/")}
            for out in self.outs
        }
        outs = {out: folder_md5(inside[out]) if inside[out] else files[out] for out in self.outs}
        return StageEntry(self.cmd, self.params, self.deps, outs)

    def content(self) -> bytes:
        """What stands in ``record.json``."""
        read_as = {"read_as": self.read_as} if self.read_as else {}  # a record of before stays as it is
        return to_json({**self.inputs, "outs": self.outs, "files": self.files, **read_as}).encode()

    def save(self, folder: Path) -> None:
        """Write ``record.json``."""
        (folder / "record.json").write_bytes(self.content())


def is_code(dep: str) -> bool:
    """Whether a dependency is a module or a package of Python, and no data."""
    return dep.endswith(".py") or (Path(dep) / "__init__.py").is_file()


def record_path(stage: str) -> Path:
    """Where a stage's record lies."""
    return RESULTS / stage / "record.json"


def load_record(stage: str) -> Record | None:
    """The record of the outputs that are on disk, if there is one that can be read."""
    try:
        return Record(**json.loads(record_path(stage).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def declared() -> dict[str, Record]:
    """The stages of dvc.yaml with the inputs that they have now; an input that is not there has the md5 "".

    Raises:
        InputError: If dvc.yaml is missing or has none of the stages.
    """
    params = _read(PARAMS_FILE)
    stages = _read(PIPELINE_FILE).get("stages", {})
    known = _Md5s()
    entries = {name: StageEntry.declared(stages[name], params) for name in STAGES if name in stages}
    return {
        name: Record(entry.cmd, entry.params, {dep: known[dep] for dep in entry.deps}, list(entry.outs))
        for name, entry in entries.items()
    }


def current_records() -> dict[str, Record]:
    """The records of the stages whose outputs on disk are what their inputs, as they are now, give."""
    return {
        name: record
        for name, now in declared().items()
        if (record := load_record(name)) and record.inputs == now.inputs and record.is_intact()
    }


def experiment_digest(stages: Mapping[str, Record]) -> str:
    """The digest of every stage's command, params and dependencies from outside the pipeline."""
    made = [out for stage in stages.values() for out in stage.outs]
    return digest({name: {**stage.inputs, "deps": _outside(stage.deps, made)} for name, stage in stages.items()})


def digest(content: Any) -> str:
    """The SHA-256 of a content that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def lock_records(content: Mapping[str, Any] | None) -> dict[str, Record]:
    """The stages as a dvc.lock has them; a folder among ``files`` has DVC's md5 of a folder."""
    stages = (content or {}).get("stages", {})
    return {name: locked_record(StageEntry.locked(stages[name])) for name in STAGES if name in stages}


def lock_of(records: Mapping[str, Record]) -> bytes:
    """A dvc.lock of these records, for DVC to check the files out by."""
    return lock_file({name: record.entry(name) for name, record in records.items()})


def locked_record(entry: StageEntry) -> Record:
    """The record that an entry of a dvc.lock or of the run-cache stands for."""
    return Record(entry.cmd, entry.params, entry.deps, sorted(entry.outs), entry.outs)


class _Md5s(dict[str, str]):
    """Each file is read once, though several stages depend on it."""

    def __missing__(self, path: str) -> str:
        self[path] = md5(Path(path)) if Path(path).exists() else ""
        return self[path]


def _outside(deps: Mapping[str, str], made: Iterable[str]) -> dict[str, str]:
    made = tuple(made)
    return {path: was for path, was in deps.items() if not any(path == out or path.startswith(f"{out}/") for out in made)}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def load_lock() -> dict[str, Record]:
    """The stages as dvc.lock has them; none where there is no such file."""
    return lock_records(from_yaml(LOCK_FILE.read_text(encoding="utf-8"))) if LOCK_FILE.is_file() else {}


def _read(path: Path) -> Any:
    try:
        return from_yaml(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise InputError(f"{path} is missing here; run from the repository's root, or `git checkout {path}`") from None
