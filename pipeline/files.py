"""Files that are complete or not there, and their md5."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PREPARED, MODELS, RESULTS = Path("data/prepared"), Path("models"), Path("results")


@contextmanager
def complete(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files move into ``folder`` when the block ends, and vanish if it raises.

    A stage writes all its outputs through one such block, at its end: they appear together or not at all.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir()):
            _replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def write_json(path: Path, content: Any) -> None:
    """Indented, sorted keys, no NaN: the same content is the same bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def md5(path: Path) -> str:
    """The md5 of a file, as DVC records it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
