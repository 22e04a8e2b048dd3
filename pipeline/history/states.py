"""The states of the project that can be shown again: the working directory's, those of git, and those of the run-cache.

A state is what a dvc.lock says. Its files are read by their md5 from DVC's cache, or from git where DVC does not cache them,
so what is read is of that state or nothing is. The working directory is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ruamel.yaml.error import YAMLError

from pipeline.base.files import from_yaml
from pipeline.dvc.formats import LOCK_FILE, content_md5
from pipeline.record.experiment import Experiment, git, patch, workspace_origin
from pipeline.record.records import STAGES, Record, current_records, declared, digest, lock_records, locked_record
from pipeline.tracking.contents import Content, content_of


class Missing(Exception):
    """A file of a state is neither in the cache nor in git."""


@dataclass(frozen=True)
class Cache:
    """DVC's cache of this repository."""

    folder: Path

    @classmethod
    def of(cls, root: Path) -> Cache:
        """Where DVC's configuration says."""
        from dvc.repo import Repo

        with Repo(str(root)) as repo:
            return cls(Path(repo.cache.local.path))

    def path(self, md5: str) -> Path:
        """Where a file of this md5 lies, if it does."""
        return self.folder / md5[:2] / md5[2:]

    def runs(self) -> list[Path]:
        """The entries of the run-cache, oldest first."""
        return sorted(self.folder.parents[1].glob("runs/*/*/*"), key=lambda path: (path.stat().st_mtime, path.name))

    def records(self) -> list[tuple[str, Record]]:
        """Stages and records of the run-cache's entries, oldest first."""
        found = [locked_record(entry) for path in self.runs() if "cmd" in (entry := _parsed(path))]
        return [(stage, record) for record in found if (stage := _stage_of(record))]

    def holds(self, record: Record) -> bool:
        """Whether all outputs of a stage are here, as what DVC or its run-cache restores."""
        try:
            return all(self.path(of).is_file() for of in self.files(record.files).values())
        except Missing:
            return False

    def files(self, outs: Mapping[str, str]) -> dict[str, str]:
        """The files that these outputs are or contain, path to md5.

        Raises:
            Missing: If the listing of a folder is not in the cache.
        """
        found: dict[str, str] = {}
        for path, md5 in outs.items():
            inside = self._listing(md5) if md5.endswith(".dir") else {"": md5}
            found |= {f"{path}/{name}" if name else path: of for name, of in inside.items()}
        return found

    def _listing(self, md5: str) -> dict[str, str]:
        try:
            return {entry["relpath"]: entry["md5"] for entry in json.loads(self.path(md5).read_bytes())}
        except OSError:
            raise Missing(md5) from None


@dataclass(frozen=True)
class State:
    """What all stages were given and made, at one time.

    Attributes:
        records: By stage; of the outputs, only what dvc.yaml names.
        origin: Tags of where it was found.
        revision: The commit that holds what DVC does not cache; empty for the run-cache.
    """

    records: Mapping[str, Record]
    origin: dict[str, str] = field(default_factory=dict)
    revision: str = ""

    @cached_property
    def experiment(self) -> Experiment:
        """Its experiment."""
        return Experiment(self.records, self.origin)

    def content(self, cache: Cache) -> Content:
        """What its run shows.

        Raises:
            Missing: If a file of it cannot be had.
        """
        records = {name: replace(record, files=cache.files(record.files)) for name, record in self.records.items()}
        if not cache.path(records["train"].files["models/model.safetensors"]).is_file():
            raise Missing("models/model.safetensors")
        md5s = {path: md5 for record in records.values() for path, md5 in record.files.items()}
        try:
            return content_of(self.experiment, records, lambda path: self._read(path, md5s[path], cache))
        except (KeyError, ValueError) as error:
            raise Missing(f"{error}, in files of another version") from error

    def _read(self, path: str, md5: str, cache: Cache) -> bytes:
        cached = cache.path(md5)
        content = cached.read_bytes() if cached.is_file() else _blob(self.revision, path)
        if content_md5(content) != md5:
            raise Missing(path)
        return content


def workspace_content() -> Content:
    """What the run of the working directory's experiment shows."""
    stages = declared()
    experiment = Experiment(stages, workspace_origin(stages))
    content = content_of(experiment, current_records(), lambda path: Path(path).read_bytes())
    return replace(content, patch=patch(stages) if experiment.origin["git.dirty"] == "true" else "")


def git_states(mentioning: str = "") -> Iterator[State]:
    """The complete states of all commits that branches, tags and DVC experiments lead to, oldest first.

    Args:
        mentioning: Only those whose dvc.lock holds this text, which spares reading the others.
    """
    seen = set()
    for line in git("log", "--all", "--full-history", "--reverse", "--format=%H", "--", str(LOCK_FILE)).splitlines():
        commit = line.strip()
        blob = git("rev-parse", f"{commit}:{LOCK_FILE}")
        if blob in seen:
            continue
        seen.add(blob)
        state = state_of(commit, mentioning)
        if state is not None:
            yield state


def state_of(commit: str, mentioning: str = "") -> State | None:
    """The state that a commit holds, if it is complete."""
    lock = git("show", f"{commit}:{LOCK_FILE}")
    records = _complete(lock) if mentioning in lock else None
    return State(records, _origin(commit), commit) if records else None


def run_cache_states(cache: Cache, known: Iterable[State] = ()) -> Iterator[State]:
    """States put together from the run-cache's entries, each with the entries of other stages that were there before it.

    Args:
        cache: DVC's cache.
        known: States that are shown anyway: an entry of one of them tells of no other.
    """
    entries = cache.records()
    told = {digest(record.inputs) for state in known for record in state.records.values()}
    for position, (stage, record) in enumerate(entries):
        if digest(record.inputs) in told:
            continue
        records = _around(stage, record, [*reversed(entries[:position]), *entries[position:]])
        if records:
            yield State(records)


def _around(stage: str, record: Record, others: list[tuple[str, Record]]) -> dict[str, Record] | None:
    """All stages: this one, and of the others the first that fit."""
    chosen = {stage: record}
    for name in (*reversed(STAGES[: STAGES.index(stage)]), *STAGES):
        if name not in chosen:
            fitting = (other for kind, other in others if kind == name and _fits(other, chosen))
            found = next(fitting, None)
            if found is None:
                return None
            chosen[name] = found
    return {name: chosen[name] for name in STAGES}


def _fits(record: Record, chosen: Mapping[str, Record]) -> bool:
    """Whether a record depends on what the chosen ones made, made what they depend on, and shares their params."""
    return all(
        _agree(record.deps, other.files) and _agree(other.deps, record.files) and _agree(record.params, other.params)
        for other in chosen.values()
    ) and all(_agree(record.deps, other.deps) for other in chosen.values())


def _agree(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _stage_of(record: Record) -> str:
    return next((name for name in STAGES if f"pipeline.{name}" in record.cmd.split()), "")


def _parsed(path: Path) -> Mapping[str, object]:
    try:
        return from_yaml(path.read_text(encoding="utf-8")) or {}
    except (OSError, YAMLError, UnicodeDecodeError):
        return {}


def _complete(lock: str) -> dict[str, Record] | None:
    try:
        records = lock_records(from_yaml(lock))
    except (YAMLError, KeyError, AttributeError, TypeError):
        return None
    return records if tuple(records) == STAGES and "results/prepare/record.json" in records["prepare"].files else None


def _origin(commit: str) -> dict[str, str]:
    refs = git("for-each-ref", "--points-at", commit, "--format=%(refname)", "refs/exps").splitlines()
    names = [ref.rpartition("/")[2] for ref in refs if "/exec/" not in ref and not ref.endswith("/stash")]
    return {"mlflow.source.git.commit": commit, "git.dirty": "false", "dvc.experiment": names[0] if names else ""}


def _blob(revision: str, path: str) -> bytes:
    content = git("show", f"{revision}:{path}") if revision else ""
    if not content:
        raise Missing(path)
    return content.encode(errors="surrogateescape")
