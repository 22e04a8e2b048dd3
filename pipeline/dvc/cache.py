"""DVC's cache of files by their md5, and its run-cache of what stages have made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml.error import YAMLError

from pipeline.base.files import from_yaml
from pipeline.dvc.formats import FOLDER, Entry
from pipeline.dvc.repository import opened

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB


class Missing(Exception):
    """A file is neither in the cache nor in git."""


@dataclass(frozen=True)
class Cache:
    """DVC's cache of a repository.

    Attributes:
        files: The files, by md5.
        runs: The folder of the run-cache.
    """

    files: HashFileDB
    runs: Path

    @classmethod
    def at(cls, root: Path) -> Cache:
        """The cache that the settings of a repository name."""
        with opened(root, "find its cache") as repo:
            return cls(repo.cache.local, Path(repo.stage_cache.cache_dir))

    def path(self, md5: str) -> Path:
        """Where a file of this md5 lies, if it does."""
        return Path(self.files.oid_to_path(md5))

    def entries(self) -> list[tuple[Path, Entry]]:
        """The files of the run-cache that can be read, oldest first, and what they say."""
        entries = []
        for path in sorted(self.runs.glob("*/*/*"), key=lambda path: (path.stat().st_mtime, path.name)):
            try:
                entries.append((path, Entry.locked(from_yaml(path.read_text(encoding="utf-8")))))
            except (OSError, YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
                continue  # damaged, or none of this format
        return entries

    def holds(self, outs: Mapping[str, str]) -> bool:
        """Whether all outputs of a stage are here, as what DVC or its run-cache restores."""
        try:
            return all(self.path(md5).is_file() for md5 in self.content(outs).values())
        except Missing:
            return False

    def content(self, outs: Mapping[str, str]) -> dict[str, str]:
        """The files that these outputs are or contain, path to md5.

        Raises:
            Missing: If the listing of a folder is not in the cache.
        """
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree
        from dvc_objects.errors import ObjectFormatError

        files = {path: md5 for path, md5 in outs.items() if not md5.endswith(FOLDER)}
        for path, md5 in outs.items() - files.items():
            try:
                listing = Tree.load(self.files, HashInfo("md5", md5))
            except (FileNotFoundError, ObjectFormatError):
                raise Missing(md5) from None
            files |= {"/".join((path, *name)): hashed.value for name, _, hashed in listing}
        return files
