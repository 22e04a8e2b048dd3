"""Whether a worker has what the process that sends it work has: versions of packages, and the project's code."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from pipeline.base.environment import PACKAGES
from pipeline.base.errors import InputError

ROOT = Path(__file__).parents[2]
DECIDING = (*PACKAGES, "zuko")  # packages on which bytes may depend


class Sender(NamedTuple):
    """The process that sends work.

    Attributes:
        start: A name of this start of it; for another, a worker looks at its own files again.
        versions: Of Python and packages.
        code: The digest of each file of ``vae/`` and ``pipeline/``.
    """

    start: str
    versions: tuple[tuple[str, str], ...]
    code: tuple[tuple[str, str], ...]


def versions() -> dict[str, str]:
    """Versions of Python and of packages on which bytes may depend; "none" of one that is missing."""
    return {"Python": platform.python_version()} | {name: _version(name) for name in DECIDING}


def code() -> dict[str, str]:
    """The digest of each file of ``vae/`` and ``pipeline/``, as they are on disk now."""
    paths = sorted(path for folder in ("vae", "pipeline") for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths}


loaded_code = cache(code)  # as it was when this process was first given work


@lru_cache(maxsize=4)
def refuse_others(sender: Sender, worker: str) -> None:
    """Refuse to work for a process with other packages or other code; in a worker.

    Args:
        sender: Whose work it is.
        worker: The name of this process, for the message.

    Raises:
        InputError: Naming what both have.
    """
    others = _differing(dict(sender.versions), versions())
    if others:
        listed = ", ".join(f"{name} {theirs}, not {ours}" for name, (ours, theirs) in others.items())
        raise InputError(
            f"cluster: the worker {worker} has {listed}, as this process has; install requirements.lock there "
            "(`pip install -r requirements.lock`) and start its workers again"
        )
    for when, theirs in (("", code()), (" loaded before", loaded_code())):
        if others := _differing(dict(sender.code), theirs):
            count = f"{len(others)} files of vae/ and pipeline/ differ"
            name, (ours, its) = next(iter(others.items()))
            raise InputError(
                f"cluster: the worker {worker} has other code{when} in {ROOT}: {count}, {name} among them (SHA-256 {its} "
                f"there, {ours} here); give it the same files and start its workers again"
            )


def _differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What differs, by name: ours and theirs."""
    pairs = {name: (ours.get(name, "none"), theirs.get(name, "none")) for name in sorted({*ours, *theirs})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
