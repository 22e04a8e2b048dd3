"""How DVC names files and folders and writes down stages, without loading DVC, whose start would slow every stage."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from pipeline.base.files import files_in, from_yaml, is_compiled, to_yaml
from pipeline.params.file import PARAMS_FILE

PIPELINE_FILE, LOCK_FILE = Path("dvc.yaml"), Path("dvc.lock")
FOLDER = ".dir"  # ends the md5 of a folder


def md5(path: Path) -> str:
    """The md5 of a file or a folder, as DVC records it: without what .dvcignore names."""
    if path.is_dir():
        files = [file for file in files_in([path]) if not is_compiled(file)]
        return folder_md5({file.relative_to(path).as_posix(): md5(file) for file in files})
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def folder_md5(files: Mapping[str, str]) -> str:
    """DVC's name for a folder of these files, relative path to md5."""
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return content_md5(json.dumps(listing).encode()) + FOLDER


def content_md5(content: bytes) -> str:
    """The md5 of a file that holds this."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class StageEntry:
    """A stage as DVC's files describe it.

    Attributes:
        cmd: Its command.
        params: The sections of params.yaml that it depends on, but for ``data.cluster``: it decides no byte, and DVC can only
            compare sections as a whole.
        deps: md5 of each file or folder that it depends on; "" where the file does not say.
        outs: md5 of each file or folder that it makes, likewise.
    """

    cmd: str
    params: dict[str, Any]
    deps: dict[str, str]
    outs: dict[str, str]

    @classmethod
    def declared(cls, stage: Mapping[str, Any], params: Mapping[str, Any]) -> StageEntry:
        """The stage as dvc.yaml declares it, with the params as they are; no file is looked at."""
        deps = [_interpolated(dep, params) for dep in stage.get("deps", [])]
        listed = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
        outs = [out if isinstance(out, str) else next(iter(out)) for out in listed]
        return cls(
            cmd=_interpolated(stage["cmd"], params),
            params=_deciding({name: params.get(name) for name in sorted(stage.get("params", []))}),
            deps=dict.fromkeys(sorted(deps), ""),
            outs=dict.fromkeys(sorted(outs), ""),
        )

    @classmethod
    def locked(cls, content: Mapping[str, Any]) -> StageEntry:
        """The stage as dvc.lock or a file of the run-cache has it.

        Raises:
            KeyError: If they would not have it so.
        """
        md5s = {kind: {file["path"]: file.get("md5", "") for file in content.get(kind, [])} for kind in ("deps", "outs")}
        return cls(content["cmd"], _deciding(content.get("params", {}).get(str(PARAMS_FILE), {})), **md5s)

    def content(self) -> dict[str, Any]:
        """What stands in dvc.lock, without sizes."""
        kinds = {"deps": self.deps, "outs": self.outs}
        lists = {k: [{"path": p, "hash": "md5", "md5": m} for p, m in sorted(files.items())] for k, files in kinds.items()}
        return {"cmd": self.cmd, "params": {str(PARAMS_FILE): self.params}, **lists}


def lock_file(stages: Mapping[str, StageEntry]) -> bytes:
    """A dvc.lock of these stages, for DVC to check the files out by."""
    return to_yaml({"schema": "2.0", "stages": {name: stage.content() for name, stage in stages.items()}})


def is_whole_lock(text: str) -> bool:
    """Whether DVC can read a dvc.lock, and nothing breaks off in what it says of a stage."""
    try:
        stages = from_yaml(text)["stages"].values()
        files = [file for stage in stages for kind in ("deps", "outs") for file in stage.get(kind, ())]
        parts = [part for stage in stages for part in (stage["cmd"], *stage.values(), *stage.get("params", {}).values())]
        return text.endswith("\n") and all(parts) and all(file.get("hash", "path") in file for file in files)
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _deciding(params: dict[str, Any]) -> dict[str, Any]:
    data = params.get("data")
    if not isinstance(data, Mapping) or "cluster" not in data:
        return params
    return params | {"data": {name: value for name, value in data.items() if name != "cluster"}}


def _interpolated(text: str, params: Mapping[str, Any]) -> str:
    """``${data.path}`` as DVC fills it in."""

    def value(match: re.Match[str]) -> str:
        return str(reduce(lambda section, key: section[key], match[1].strip().split("."), params))

    return re.sub(r"\$\{([^}]+)\}", value, text)
