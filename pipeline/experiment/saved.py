"""The saved state of an unfinished stage: what it has computed so far, so that it can go on after a crash.

It lies under the main repository, outside DVC's outputs, in a folder named by the stage's inputs and by the machine's facts,
so that the state of another experiment is never picked up. Reading it executes no code.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.base.files import sync, write_whole

SAVE_SECONDS = 5.0  # at most so often; EVIDENCE_SAVE_SECONDS overrides it
FRESH = "EVIDENCE_FRESH"  # set: ignore what is saved, as `dvc repro -f` does
_NAMES = ("{}.state", "{}.previous")


class Saved:
    """The saved state of one stage, by its inputs.

    Args:
        folder: Where it lies; made when something is saved.
        fresh: Whether to ignore what an earlier process has saved.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self._every = float(os.environ.get("EVIDENCE_SAVE_SECONDS", SAVE_SECONDS))
        self._last = time.monotonic()
        self._fresh = fresh
        self._broken = False

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Keep every other process out, or wait until the one that is in has ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._wait(lock, what)
        try:
            (self.folder / "holder").write_text(str(os.getpid()))
            if self._fresh:
                for path in self.folder.iterdir():
                    if path.suffix in (".state", ".previous", ".new"):
                        path.unlink()
            yield
        finally:
            lock.release()

    def due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return time.monotonic() - self._last >= self._every

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Save tensors, numbers, strings, lists and dictionaries, fsynced, keeping what was saved before.

        A disk that is full costs a warning: the stage goes on, and the state before stays.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(content, buffer)
        payload = buffer.getvalue()
        current, previous = (self.folder / pattern.format(name) for pattern in _NAMES)
        try:
            fresh = self.folder / f"{name}.new"
            write_whole(fresh, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
            if current.exists():
                os.replace(current, previous)
            os.replace(fresh, current)
            sync(self.folder)
        except OSError as error:
            if not self._broken:
                print(f"warning: cannot save the state for resuming ({error}); the stage goes on without", file=sys.stderr)
            self._broken = True
        self._last = time.monotonic()

    def load(self, name: str, check: Callable[[dict[str, Any]], None] = lambda content: None) -> dict[str, Any] | None:
        """What was saved last, or, if that is damaged or ``check`` raises ValueError, before; None if there is neither."""
        for pattern in _NAMES:
            path = self.folder / pattern.format(name)
            if path.is_file():
                try:
                    content = _checked(path.read_bytes())
                    check(content)
                    return content
                except ValueError as error:
                    print(f"warning: {path} was refused: {error}; going on from what was saved before it", file=sys.stderr)
        return None

    def _wait(self, lock: FileLock, what: str) -> None:
        path = self.folder / "holder"
        holder = path.read_text() if path.is_file() else "unknown"
        print(
            f"{what} of this very experiment already runs as process {holder}; waiting for it to end "
            "(Ctrl-C leaves it running; if it is ended, this one goes on from its last saved state)",
            file=sys.stderr,
            flush=True,
        )
        lock.acquire(poll_interval=0.2)


def saved_folder(root: Path, stage: str, inputs: str, machine: str = "") -> Path:
    """The folder of the state of a stage, by the digests of its inputs and of the machine's facts."""
    return root / ".evidence" / "saved" / f"{stage}-{inputs[:16]}{machine and '-' + machine[:8]}"


def forget(root: Path, stage: str, inputs: str, made: Callable[[], bool]) -> None:
    """Remove the states of a stage with these inputs, whatever the machine, unless a process holds them.

    Args:
        root: The main repository.
        stage: The stage.
        inputs: The digest of its inputs.
        made: Asked where there is a state: whether the stage's outputs, which make it useless, can be had.
    """
    prefix = saved_folder(root, stage, inputs)
    folders = list(prefix.parent.glob(f"{prefix.name}*"))
    if folders and made():
        for folder in folders:
            remove(folder)


def remove(folder: Path) -> bool:
    """Remove a state unless a process holds it; whether it was removed."""
    try:
        with FileLock(folder / "lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return False
    return not folder.exists()


def leftovers(root: Path) -> list[Path]:
    """The folders of all saved states."""
    return sorted(path for path in (root / ".evidence" / "saved").glob("*") if path.is_dir())


def _checked(content: bytes) -> dict[str, Any]:
    import torch

    checksum, _, payload = content.partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != checksum:
        raise ValueError("it is damaged or truncated")
    try:
        if not zipfile.is_zipfile(io.BytesIO(payload)):  # a bare pickle
            raise pickle.UnpicklingError
        return torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError("it holds more than data (none of its code was run)") from error
