"""Data, model and results of an earlier state, put beside its code by the md5 that its dvc.lock says.

A dvc.lock that comes from a store is not trusted: what it names stays inside the folder and is what its md5 says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError, reason
from pipeline.base.files import write_whole
from pipeline.dvc.formats import LOCK_FILE, PIPELINE_FILE, content_md5, md5
from pipeline.dvc.repository import Cache, default_remote, opened, share_cache
from pipeline.experiment.records import STAGES, Record, declared, experiment_digest, load_lock

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

    def content(self, path: str, wanted: str) -> bytes | None:
        """The content of a file with this md5, if there is one."""
        for place in (self.cache.path(wanted), self.root / path):
            if place.is_file() and md5(place) == wanted:
                return place.read_bytes()
        content = self.fetch(path)
        return content if content is not None and content_md5(content) == wanted else None

    def put(self, folder: Path, wanted: Mapping[str, str]) -> dict[str, str]:
        """Put the files that DVC did not, data and what it does not cache; return those that are nowhere to be had."""
        for path, md5_ in wanted.items():
            target = folder / path
            if not _is(target, md5_) and target.resolve().is_relative_to(folder.resolve()):
                content = self.content(path, md5_)
                if content is not None:
                    write_whole(target, content)
        return {path: md5_ for path, md5_ in wanted.items() if not _is(folder / path, md5_)}


def fill(folder: Path, root: Path, fetch: Callable[[str], bytes | None]) -> dict[str, Record]:
    """Get data and outputs, by the md5 that dvc.lock says, from the cache of the repository at ``root`` or its remote.

    Returns:
        The stages as dvc.lock has them; everything that they name is in the folder.

    Raises:
        InputError: If dvc.lock is of another state than the code, or some file is nowhere to be had.
    """
    with chdir(folder):
        stages, locked = _read(PIPELINE_FILE, declared), _read(LOCK_FILE, load_lock)
        _refuse_others(stages, locked)
    share_cache(folder, root)
    places = Places(root, Cache.at(root), fetch)
    outputs = {path: md5_ for record in locked.values() for path, md5_ in record.files.items()}
    with opened(folder, "check its files out") as repo:
        repo.checkout(force=True, allow_missing=True)
    absent = places.put(folder, _read(LOCK_FILE, lambda: _raw_data(locked)) | outputs)
    remote = default_remote(folder)
    if absent and remote:
        with opened(folder, "pull its files") as repo:
            repo.pull(force=True, allow_missing=True)
        absent = places.put(folder, absent)
    if absent:
        listed = ", ".join(f"{path} (md5 {md5_})" for path, md5_ in list(absent.items())[:3])
        more = f" and {len(absent) - 3} more files" if len(absent) > 3 else ""
        where = f"DVC's cache nor on its remote {remote!r}" if remote else "DVC's cache, and it has no remote to ask"
        raise InputError(
            f"{listed}{more}: not in {where}. Raw data may be put back at that path in this repository. What DVC holds: run "
            "`dvc push --all-commits` (or `dvc exp push`) where the run was made, and here `dvc remote add --default NAME URL`"
        )
    return locked


def check(folder: Path, locked: Mapping[str, Record], digest: str) -> None:
    """Compare every file with what dvc.lock says, and the experiment with the wanted one.

    Raises:
        InputError: If something differs: which, and what the lock says.
    """
    with chdir(folder):
        stages = _read(PIPELINE_FILE, declared)
    changed = sorted({name for stage, record in locked.items() for name in record.changes(stages[stage])})
    if changed:
        raise InputError(f"its dvc.lock names another {', '.join(changed[:3])} than the commit and the stored changes hold")
    if (held := experiment_digest(stages)) != digest:
        raise InputError(f"what its commit and dvc.lock hold is the experiment {held}, not {digest}")


def _raw_data(locked: Mapping[str, Record]) -> dict[str, str]:
    """The path of the raw data, and the md5 that dvc.lock says."""
    prepare = locked["prepare"]
    path = str(prepare.params["data"]["path"])
    return {path: prepare.deps[path]}


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


def _read(file: Path, load: Callable[[], T]) -> T:
    try:
        return load()
    except (YAMLError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"its {file} cannot be read: {reason(error)}") from error


def _is(path: Path, wanted: str) -> bool:
    return path.exists() and md5(path) == wanted
