"""Files that are complete or not there, on disk when the program goes on."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PREPARED, MODELS, RESULTS = Path("data/prepared"), Path("models"), Path("results")


@contextmanager
def complete(*folders: Path) -> Iterator[tuple[Path, ...]]:
    """Yield an empty folder for each of ``folders``, whose files replace those in it when the block ends without an error.

    A stage writes all its outputs through one such block, at its end: they appear together or not at all, and nothing of an
    earlier run stays beside them but the .gitignore that DVC keeps there.
    """
    partial = tuple(folder.with_name(folder.name + ".partial") for folder in folders)
    for folder in partial:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        yield partial
        for folder in partial:
            sync(*folder.iterdir())
        for source, target in zip(partial, folders, strict=True):
            target.mkdir(parents=True, exist_ok=True)
            made = sorted(path.name for path in source.iterdir())
            for name in made:
                os.replace(source / name, target / name)
            for path in target.iterdir():
                if path.is_file() and path.name not in (*made, ".gitignore"):
                    path.unlink()
            sync(target)
    finally:
        for folder in partial:
            shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, whatever happens to the process or the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def sync(*paths: Path) -> None:
    """Wait until files or folders are on disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def to_json(content: Any) -> str:
    """JSON with sorted keys, indented and without NaN: the same content is the same bytes."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write `to_json` of the content."""
    path.write_text(to_json(content), encoding="utf-8")


def from_yaml(text: str) -> Any:
    """Content of a YAML 1.2 text, without its tags: nothing is constructed but values, lists and mappings."""
    return YAML(typ="safe", pure=True).load(text)


def to_yaml(content: Any, *, in_order: bool = False, compact: bool = False) -> bytes:
    """YAML of values, lists and mappings, with sorted keys, or in their order; ``compact`` ones have leaves in one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None if compact else False
    yaml.sort_base_mapping_type_on_output = not in_order  # type: ignore[assignment]
    buffer = io.BytesIO()
    yaml.dump(content, buffer)
    return buffer.getvalue()


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files that these paths name or contain, sorted."""
    inside = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sorted(file for file in inside if file.is_file())


def is_compiled(file: Path) -> bool:
    """Whether Python made it of a source."""
    return file.suffix == ".pyc" or "__pycache__" in file.parts
