"""A repository as DVC sees it, and the settings that lead to its cache and its remotes. DVC is loaded where it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import InputError, reason

if TYPE_CHECKING:
    from dvc.repo import Repo


@contextmanager
def opened(folder: Path, purpose: str) -> Iterator[Repo]:
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
