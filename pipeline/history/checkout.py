"""Data, model and results of an earlier state, put beside its code by the md5 that its dvc.lock says.

A dvc.lock that comes from a store is not trusted: what it names stays inside the folder and is what its md5 says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError
from pipeline.base.files import write_whole
from pipeline.dvc.formats import content_md5, md5
from pipeline.history.states import Cache
from pipeline.record.records import STAGES, Record, declared, experiment_digest, load_lock
from pipeline.tracking.store import reason

T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where files are looked for by their md5, beside DVC.

    Attributes:
        root: The main repository, whose files may be those of the state.
        cache: Its cache, which also keeps what DVC only records, where it ran here.
        fetch: Gets the content of a path from elsewhere.
    """

    root: Path
    cache: Cache
    fetch: Callable[[str], bytes | None]

    def content(self, path: str, of: str) -> bytes | None:
        """The content of a file with this md5, if there is one."""
        for place in (self.cache.path(of), self.root / path):
            if place.is_file() and md5(place) == of:
                return place.read_bytes()
        content = self.fetch(path)
        return content if content is not None and content_md5(content) == of else None


def fill(folder: Path, root: Path, fetch: Callable[[str], bytes | None]) -> dict[str, Record]:
    """Get data and outputs, by the md5 that dvc.lock says, from the cache of the repository at ``root`` or its remote.

    Returns:
        The stages as dvc.lock has them; everything that they name is in the folder.

    Raises:
        InputError: If dvc.lock is of another state than the code, or some file is nowhere to be had.
    """
    with chdir(folder):
        stages, locked = _read("dvc.yaml", declared), _read("dvc.lock", load_lock)
        _refuse_others(stages, locked)
    _share_cache(folder, root)
    places = Places(root, Cache.of(root), fetch)
    _dvc(folder, "check its files out", lambda repo: repo.checkout(force=True, allow_missing=True))
    absent = _put(folder, _read("dvc.lock", lambda: _data(locked)) | _outputs(locked), places)
    if absent and _remote(folder):
        _dvc(folder, "pull its files", lambda repo: repo.pull(force=True, allow_missing=True))
        absent = _put(folder, absent, places)
    if absent:
        raise InputError(_nowhere(absent, _remote(folder)))
    return locked


def check(folder: Path, locked: Mapping[str, Record], digest: str) -> None:
    """Compare every file with what dvc.lock says, and the experiment with the wanted one.

    Raises:
        InputError: If something differs: which, and what the lock says.
    """
    with chdir(folder):
        stages = _read("dvc.yaml", declared)
    changed = sorted({name for stage, record in locked.items() for name in record.changes(stages[stage])})
    if changed:
        raise InputError(f"its dvc.lock names another {', '.join(changed[:3])} than the commit and the stored changes hold")
    if (found := experiment_digest(stages)) != digest:
        raise InputError(f"what its commit and dvc.lock hold is the experiment {found}, not {digest}")


def _refuse_others(stages: Mapping[str, Record], locked: Mapping[str, Record]) -> None:
    """Refuse a dvc.lock that is not of this dvc.yaml, and outputs that would lie outside."""
    root = Path.cwd().resolve()
    if not Path(".dvc").is_dir():
        raise InputError("its commit is not of a repository of DVC's")
    for stage in STAGES:
        if stage not in stages or stage not in locked or stages[stage].outs != locked[stage].outs:
            raise InputError(f"its dvc.lock has not the outputs that its dvc.yaml names in stage {stage}")
        for out in stages[stage].outs:
            if not Path(out).resolve().is_relative_to(root):
                raise InputError(f"the output {out} of its stage {stage} lies outside the repository; it was refused")


def _read(what: str, load: Callable[[], T]) -> T:
    try:
        return load()
    except (YAMLError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"its {what} cannot be read: {reason(error)}") from error


def _data(locked: Mapping[str, Record]) -> dict[str, str]:
    prepare = locked["prepare"]
    data = str(prepare.params["data"]["path"])
    return {data: prepare.deps[data]}


def _outputs(locked: Mapping[str, Record]) -> dict[str, str]:
    return {path: of for record in locked.values() for path, of in record.files.items()}


def _put(folder: Path, wanted: Mapping[str, str], places: Places) -> dict[str, str]:
    """Put the files that DVC did not: data, and what DVC does not cache. Those that are nowhere to be had."""
    for path, of in wanted.items():
        target = folder / path
        if not _is(target, of) and target.resolve().is_relative_to(folder.resolve()):
            content = places.content(path, of)
            if content is not None:
                write_whole(target, content)
    return {path: of for path, of in wanted.items() if not _is(folder / path, of)}


def _is(path: Path, of: str) -> bool:
    return path.exists() and md5(path) == of


def _nowhere(absent: Mapping[str, str], remote: str) -> str:
    listed = ", ".join(f"{path} (md5 {of})" for path, of in list(absent.items())[:3])
    more = f" and {len(absent) - 3} more files" if len(absent) > 3 else ""
    where = f"DVC's cache nor on its remote {remote!r}" if remote else "DVC's cache, and it has no remote to ask"
    return (
        f"{listed}{more}: not in {where}. Raw data may be put back at that path in this repository. What DVC holds: run "
        "`dvc push --all-commits` (or `dvc exp push`) where the run was made, and here `dvc remote add --default NAME URL`"
    )


def _share_cache(folder: Path, root: Path) -> None:
    """Let the worktree have the cache and the remotes that the repository has now, in a file that git ignores."""
    from dvc.config import merge
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        levels = [repo.config.load_one(level) for level in ("repo", "local")]
        cache = repo.cache.local_cache_dir
    with Repo(str(folder)) as repo, repo.config.edit("local") as config:
        for settings in (*levels, {"cache": {"dir": cache}}):
            merge(config, settings)
    (folder / ".dvc" / "config.local").chmod(0o600)  # it may hold what leads to a remote


def _remote(folder: Path) -> str:
    """The name of the default remote."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        return str(repo.config["core"].get("remote", ""))


def _dvc(folder: Path, what: str, work: Callable[[Any], object]) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            work(repo)
    except (DvcException, OSError) as error:
        raise InputError(f"DVC cannot {what}: {reason(error)}") from error
