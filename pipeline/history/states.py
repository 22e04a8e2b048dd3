"""The states of the project that can be shown again: the working directory's, those of git, and those of the run-cache.

A state is what a dvc.lock says. Its files are read by their md5 from DVC's cache, or from git where DVC does not cache them,
so what is read is of that state or nothing is. The working directory is not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ruamel.yaml.error import YAMLError

from pipeline.base.files import from_yaml
from pipeline.base.git import git
from pipeline.dvc.formats import LOCK_FILE, content_md5
from pipeline.dvc.repository import Cache, Missing
from pipeline.dvc.unfinished import experiments
from pipeline.experiment.identity import Experiment, patch, workspace_origin
from pipeline.experiment.records import (
    STAGES,
    Record,
    current_records,
    declared,
    digest,
    lock_records,
    locked_record,
    record_path,
)
from pipeline.tracking.contents import Content, content_of


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
        """The experiment that the state is of."""
        return Experiment(self.records, self.origin)

    def content(self, cache: Cache) -> Content:
        """What the run of the state shows.

        Raises:
            Missing: If a file of it cannot be had.
        """
        records = {name: replace(record, files=cache.content(record.files)) for name, record in self.records.items()}
        if not cache.path(records["train"].files["models/model.safetensors"]).is_file():
            raise Missing("models/model.safetensors")
        md5s = {path: md5 for record in records.values() for path, md5 in record.files.items()}

        def read(path: str) -> bytes:
            cached, blob = cache.path(md5s[path]), f"{self.revision}:{path}" if self.revision else ""
            content = cached.read_bytes() if cached.is_file() else git("show", blob).encode(errors="surrogateescape")
            if content_md5(content) != md5s[path]:
                raise Missing(path)
            return content

        try:
            return content_of(self.experiment, records, read)
        except (KeyError, ValueError) as error:
            raise Missing(f"{error}, in files of another version") from error


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
    try:
        records = lock_records(from_yaml(lock)) if mentioning in lock else {}
    except (YAMLError, KeyError, AttributeError, TypeError):
        return None
    if tuple(records) != STAGES or str(record_path("prepare")) not in records["prepare"].files:
        return None
    names = [name for _, name in experiments("--points-at", commit)]
    origin = {"mlflow.source.git.commit": commit, "git.dirty": "false", "dvc.experiment": names[0] if names else ""}
    return State(records, origin, commit)


def run_cache_records(cache: Cache) -> list[tuple[str, Record]]:
    """Stages and records of the run-cache's entries, oldest first."""
    records = [locked_record(entry) for _, entry in cache.entries()]
    return [(name, record) for record in records for name in STAGES if f"pipeline.{name}" in record.cmd.split()]


def run_cache_states(cache: Cache, known: Iterable[State] = ()) -> Iterator[State]:
    """States put together from the run-cache's entries, each with the entries of other stages that were there before it.

    Args:
        cache: DVC's cache.
        known: States that are shown anyway: an entry of one of them tells of no other.
    """
    entries = run_cache_records(cache)
    told = {digest(record.inputs) for state in known for record in state.records.values()}
    for position, (stage, record) in enumerate(entries):
        if digest(record.inputs) not in told:
            records = _around(stage, record, [*reversed(entries[:position]), *entries[position:]])
            if records:
                yield State(records)


def _around(stage: str, record: Record, others: list[tuple[str, Record]]) -> dict[str, Record] | None:
    """All stages: this one, and of the others the first that fit; none if for some stage none does."""
    chosen = {stage: record}
    for name in (*reversed(STAGES[: STAGES.index(stage)]), *STAGES):
        if name not in chosen:
            fitting = (other for kind, other in others if kind == name and _fits(other, chosen.values()))
            first = next(fitting, None)
            if first is None:
                return None
            chosen[name] = first
    return {name: chosen[name] for name in STAGES}


def _fits(record: Record, chosen: Iterable[Record]) -> bool:
    """Whether a record depends on what the chosen ones made, made what they depend on, and shares their inputs."""
    return all(
        these[name] == those[name]
        for other in chosen
        for these, those in (
            (record.deps, other.files),
            (record.files, other.deps),
            (record.params, other.params),
            (record.deps, other.deps),
        )
        for name in these.keys() & those.keys()
    )
