"""An experiment on a disk of its own, which gets full: run by a test as a program, within a mount namespace.

The file system and its namespace vanish with the program, however it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.laboratory import Fault, Laboratory, Trial, wait_for
from tests.guard import is_alive
from tests.workspace import ROOT

NAMESPACE = ["unshare", "--map-root-user", "--mount"]
MEBIBYTES = 64
FILL_SECONDS = 0.01  # between fillings: what others delete is taken too


@cache
def no_disk() -> str | None:
    """Why there can be no disk of its own here, or None."""
    if shutil.which("unshare") is None:
        return "unshare is not installed: apt-get install util-linux"
    tried = subprocess.run([*NAMESPACE, *_mount(Path("/tmp"))], capture_output=True, text=True, check=False)  # noqa: S108
    return f"no file system may be mounted here: {tried.stderr.strip()}" if tried.returncode else None


def _mount(folder: Path) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(folder)]


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Let nothing more be written to the file system of ``folder`` within the block."""
    stop, filler = threading.Event(), folder / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            while not stop.is_set():
                for size in (2**20, 2**12, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)) and not stop.is_set():
                            pass
                stop.wait(FILL_SECONDS)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        wait_for(lambda: os.statvfs(folder).f_bavail == 0)
        yield
    finally:
        stop.set()
        thread.join()
        filler.unlink()


def full_to_the_end(trial: Trial, stage: str, seconds: float) -> None:
    """The disk gets full at a moment of a stage, and stays so until DVC has ended."""
    start = trial.begin()
    with ExitStack() as block:
        hit = start.at(stage, seconds, lambda process: block.enter_context(full(trial.folder.parent)))
        start.wait()
    assert hit, "the stage ended before its moment came"
    trial.note("disk full to the end", stage)


def full_while_saving(trial: Trial, stage: str, seconds: float) -> None:
    """The disk gets full when the stage has saved something, and has space again before it ends: nothing fails."""
    start = trial.begin()
    wait_for(lambda: trial.states(stage))
    with full(trial.folder.parent):
        wait_for(lambda: "cannot save the state" in start.said or not is_alive(start.process))
    assert start.wait() == 0, start.said
    assert "cannot save the state" in start.said
    trial.faults.append(Fault(f"disk full while saving, {stage}"))


HOWS = {how.__name__: how for how in (full_to_the_end, full_while_saving)}


def main(laboratory: str, folder: str, how: str, stage: str, seconds: str) -> None:
    """Run an experiment whose disk gets full, then again with space; print how its trial ended, as JSON."""
    disk, problems = Path(folder) / "disk", ""
    disk.mkdir(exist_ok=True)
    subprocess.run(_mount(disk), check=True)
    trial = Trial(Laboratory(Path(laboratory), {}), disk / "trial", Path(folder), os.environ)
    try:
        HOWS[how](trial, stage, float(seconds))
        trial.finish()
    except AssertionError as error:
        problems = str(error) or "failed"
    finally:
        trial.end()
    print(json.dumps({"faults": [asdict(fault) for fault in trial.faults], "problems": problems}))


def run(laboratory: Laboratory, folder: Path, how: str, stage: str, seconds: float, environment: Mapping[str, str]) -> Any:
    """What `main` prints, as run within its own file systems."""
    words = [str(laboratory.folder), str(folder), how, stage, str(seconds)]
    command = [*NAMESPACE, sys.executable, "-W", "ignore", "-m", "tests.faults.disk", *words]
    done = subprocess.run(command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
