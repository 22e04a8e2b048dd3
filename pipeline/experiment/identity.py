"""What an experiment is, where it came from, and how it is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.base.git import git
from pipeline.dvc.formats import PIPELINE_FILE
from pipeline.experiment.records import Record, experiment_digest, is_code
from pipeline.params.file import PARAMS_FILE

LARGEST_PATCH = 2**20  # characters, of one file


@dataclass(frozen=True)
class Experiment:
    """An experiment's identity: the commands, params and outside dependencies of its stages.

    Attributes:
        stages: The stages' records, of whatever part of them has run.
        origin: Tags that say where it came from: commit, DVC experiment, and whether the tree was dirty.
    """

    stages: Mapping[str, Record]
    origin: dict[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Same commands, params, data and code: same digest, in any clone, at any time."""
        return experiment_digest(self.stages)

    @property
    def data(self) -> Path:
        """The raw data."""
        return Path(self.stages["prepare"].params["data"]["path"])

    @property
    def name(self) -> str:
        """DVC's name of the experiment, or the data's name and the digest's first characters."""
        return self.given_name or f"{self.data.stem}-{self.digest[:7]}"

    @property
    def given_name(self) -> str | None:
        """DVC's name of the experiment, where it runs as one."""
        return self.origin.get("dvc.experiment") or None

    @property
    def tags(self) -> dict[str, str]:
        """What an MLflow run is tagged with."""
        data = self.stages["prepare"].deps.get(str(self.data), "")
        return {"evidence.digest": self.digest, "data.md5": data, **self.origin}

    @property
    def params(self) -> dict[str, object]:
        """The sections of params.yaml, from all stages."""
        return {name: value for stage in self.stages.values() for name, value in stage.params.items()}


def workspace_origin(stages: Mapping[str, Record]) -> dict[str, str]:
    """Tags of where the working directory's experiment comes from."""
    return {
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "git.dirty": str(bool(git("status", "--porcelain", "--", *_sources(stages)))).lower(),
        "mlflow.source.git.commit": git("rev-parse", "HEAD").strip(),
    }


def patch(stages: Mapping[str, Record]) -> str:
    """How code, params and small data differ from the commit that the first line names; for ``git apply``."""
    sources = _sources(stages)
    changed = _names("diff", "--name-only", "--no-renames", "-z", "HEAD", "--", *sources)
    new = _names("ls-files", "--others", "--exclude-standard", "-z", "--", *sources)
    parts = [git(*_DIFF, "HEAD", "--", f":(literal){name}") for name in changed]
    parts += [git(*_DIFF, "--no-index", "--", "/dev/null", name) for name in new]
    return f"commit {git('rev-parse', 'HEAD')}" + "".join(part for part in parts if len(part) <= LARGEST_PATCH)


# whatever the user's settings of git are
_DIFF = (
    "diff",
    "--binary",
    "--no-renames",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)


def _names(*arguments: str) -> list[str]:
    return [name for name in git(*arguments).split("\0") if name]


def _sources(stages: Mapping[str, Record]) -> list[str]:
    """The files that make the experiment what it is, as git pathspecs; nothing else is looked at, so no secret leaks."""
    made = [out for stage in stages.values() for out in stage.outs]
    deps = {dep for stage in stages.values() for dep in stage.deps}
    outside = {dep for dep in deps if not any(dep == out or dep.startswith(f"{out}/") for out in made)}
    inside = {
        dep for dep in outside if not Path(dep).is_absolute() and ".." not in Path(dep).parts
    }  # else git would refuse all
    beside = {f"{dep}.dvc" for dep in inside if not is_code(dep)}  # of data that DVC holds
    code = {f":(glob){Path(dep).parent}/**/*.py" for dep in inside if dep.endswith(".py")}  # what shows runs is no dependency
    files = {str(PIPELINE_FILE), str(PARAMS_FILE), "requirements.lock", *inside, *beside}
    return sorted({*(f":(literal){path}" for path in files), *code})
