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
    """Yield an empty folder whose files replace those in ``folder`` when the block ends, and vanish if it raises.

    A stage writes all its outputs through one such block, at its end: they appear together or not at all, and nothing of an
    earlier run stays beside them but the .gitignore that DVC keeps there.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        folder.mkdir(parents=True, exist_ok=True)
        made = sorted(path.name for path in partial.iterdir())
        for name in made:
            os.replace(partial / name, folder / name)
        for path in folder.iterdir():
            if path.is_file() and path.name not in (*made, ".gitignore"):
                path.unlink()
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Indented, sorted keys, no NaN: the same content is the same bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def md5(path: Path) -> str:
    """The md5 of a file, as DVC records it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
