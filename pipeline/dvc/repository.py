"""A repository as DVC sees it: its settings, its cache of files by their md5, and its run-cache of what stages have made.

DVC is loaded where it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError, reason
from pipeline.base.files import from_yaml
from pipeline.dvc.formats import FOLDER, StageEntry


class Missing(Exception):
    """A file is neither in the cache nor in git."""


@contextmanager
def opened(folder: Path, purpose: str) -> Iterator[Any]:
    """DVC's view of a repository.

    Raises:
        InputError: If DVC fails in the block: that it cannot serve the purpose, and why.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            yield repo
    except (DvcException, OSError) as error:
        raise InputError(f"DVC cannot {purpose}: {reason(error)}") from error


def share_cache(folder: Path, root: Path) -> None:
    """Let a worktree have the cache and the remotes that the repository at ``root`` has, in a file that git ignores."""
    from dvc.config import merge

    with opened(root, "read its settings") as repo:
        levels = [repo.config.load_one(level) for level in ("repo", "local")]
        cache = repo.cache.local_cache_dir
    with opened(folder, "set its cache") as repo, repo.config.edit("local") as config:
        for settings in (*levels, {"cache": {"dir": cache}}):
            merge(config, settings)
    (folder / ".dvc" / "config.local").chmod(0o600)  # it may hold what leads to a remote


def default_remote(folder: Path) -> str:
    """The name of the default remote; empty if there is none."""
    with opened(folder, "read its settings") as repo:
        return str(repo.config["core"].get("remote", ""))


@dataclass(frozen=True)
class Cache:
    """DVC's cache of a repository.

    Attributes:
        files: The files, by md5, as DVC keeps them.
        runs: The folder of the run-cache.
    """

    files: Any
    runs: Path

    @classmethod
    def at(cls, root: Path) -> Cache:
        """The cache that the settings of a repository name."""
        with opened(root, "find its cache") as repo:
            return cls(repo.cache.local, Path(repo.stage_cache.cache_dir))

    def path(self, md5: str) -> Path:
        """Where a file of this md5 lies, if it does."""
        return Path(self.files.oid_to_path(md5))

    def entries(self) -> list[tuple[Path, StageEntry]]:
        """The files of the run-cache that can be read, oldest first, and what they say."""
        entries = []
        for path in sorted(self.runs.glob("*/*/*"), key=lambda path: (path.stat().st_mtime, path.name)):
            try:
                entries.append((path, StageEntry.locked(from_yaml(path.read_text(encoding="utf-8")))))
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
