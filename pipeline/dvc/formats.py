"""How DVC names files and folders and writes down stages, without loading DVC, whose start would slow every stage."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from pipeline.base.files import files_in, from_yaml, is_compiled, to_yaml
from pipeline.base.git import git
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


def untracked_note(path: Path, folder: Path = Path()) -> str | None:
    """That neither git nor DVC keeps data, which queued experiments and other checkouts then lack, and what mends it.

    Args:
        path: Of a file or a folder.
        folder: The repository.

    Returns:
        A sentence; None where either keeps it, there is no such file, or no git.
    """
    pointers = [pointer for at in (path, *path.parents) if (folder / (pointer := f"{at}.dvc")).is_file()]
    at = pointers[0] if pointers else str(path)
    others, ignored = (
        [name for name in listed.split("\0") if name and not (folder / f"{name}.dvc").is_file()]
        for options in ((), ("--ignored", "--exclude-standard"))
        for listed in [git("ls-files", "--others", "-z", *options, "--", f":(literal){at}", folder=folder)]
    )
    if not others or str(path) in made_by_stages(folder):
        return None
    asked = shlex.quote(at)
    kept, add = f"dvc add {asked} && git add {asked}.dvc", f"git add {asked}"
    command = f"`{add}`" if pointers else f"`{kept}`" if ignored else f"`{add}`, or, if it is large, `{kept}`"
    return f"{path} is in neither git nor DVC, so that `dvc exp run --queue` and other checkouts do not have it: {command}"


def made_by_stages(folder: Path) -> set[str]:
    """The files and folders that stages make, by dvc.lock."""
    path = folder / LOCK_FILE
    content = from_yaml(path.read_text(encoding="utf-8")) if path.is_file() else None
    stages = (content or {}).get("stages", {})
    return {out["path"] for stage in stages.values() for out in stage.get("outs", [])}


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
