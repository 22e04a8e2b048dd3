"""What each stage was given and what it made of it: the record among its outputs, and the experiment's digest.

A record says the same as the stage's entry in dvc.lock, which DVC writes only after the stage has ended, from what the files
are by then. The record is written by the stage itself, from what it read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS, folder_md5, from_yaml, md5, to_json
from pipeline.params.file import PARAMS_FILE

STAGES = ("prepare", "train", "evaluate", "generate")
PIPELINE_FILE, LOCK_FILE = Path("dvc.yaml"), Path("dvc.lock")


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

    def lock_entry(self, stage: str) -> dict[str, Any]:
        """The stage's entry in a dvc.lock, without sizes."""
        own = {str(record_path(stage)): hashlib.md5(self.content(), usedforsecurity=False).hexdigest()}
        files = own | self.files  # a record cannot hold its own md5
        md5s = {"deps": self.deps, "outs": {out: _md5_of(out, files) for out in self.outs}}
        lists = {kind: [{"path": p, "hash": "md5", "md5": m} for p, m in sorted(of.items())] for kind, of in md5s.items()}
        return {"cmd": self.cmd, "params": {str(PARAMS_FILE): self.params}, **lists}

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
    return {name: _planned(stages[name], params, known) for name in STAGES if name in stages}


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
    return {name: locked_record(stages[name]) for name in STAGES if name in stages}


def _md5_of(out: str, files: Mapping[str, str]) -> str:
    inside = {path.removeprefix(f"{out}/"): of for path, of in files.items() if path.startswith(f"{out}/")}
    return folder_md5(inside) if inside else files[out]


def locked_record(entry: Mapping[str, Any]) -> Record:
    """The record that one entry of a dvc.lock or of the run-cache stands for.

    Raises:
        KeyError: If it is no such entry.
    """
    md5s = {kind: {file["path"]: file.get("md5", "") for file in entry.get(kind, [])} for kind in ("deps", "outs")}
    params = entry.get("params", {}).get(str(PARAMS_FILE), {})
    return Record(entry["cmd"], params, md5s["deps"], sorted(md5s["outs"]), md5s["outs"])


def _planned(stage: Mapping[str, Any], params: Mapping[str, Any], known: _Md5s) -> Record:
    deps = [_interpolated(dep, params) for dep in stage.get("deps", [])]
    outs = [_path(entry) for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return Record(
        cmd=_interpolated(stage["cmd"], params),
        params={name: params.get(name) for name in sorted(stage.get("params", []))},
        deps={dep: known[dep] for dep in sorted(deps)},
        outs=sorted(outs),
    )


class _Md5s(dict[str, str]):
    """Each file is read once, though several stages depend on it."""

    def __missing__(self, path: str) -> str:
        self[path] = md5(Path(path)) if Path(path).exists() else ""
        return self[path]


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _interpolated(text: str, params: Mapping[str, Any]) -> str:
    """``${data.path}`` as DVC fills it in."""

    def value(match: re.Match[str]) -> str:
        return str(reduce(lambda section, key: section[key], match[1].strip().split("."), params))

    return re.sub(r"\$\{([^}]+)\}", value, text)


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
