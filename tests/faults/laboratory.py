"""A small experiment in a repository of its own: run once without a fault, and again, in a fresh copy, for each fault."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.experiment.saved import Saved
from tests.clones import DIGITS, Clone, Repository
from tests.guard import is_alive
from tests.mlflow_store import Shown
from tests.workspace import write_params

SECONDS = 400  # that anything may take, on a busy machine
TICK = 0.01
STAGES = ("train", "evaluate")  # those that faults hit
SMALL: dict[str, Any] = {
    **DIGITS,
    "train.max_epochs": 100,
    "evaluate.samples": 1000,
    "evaluate.annealing": {"chains": 512, "temperatures": 8, "leapfrog_steps": 2, "bounds_examples": 40},
}
QUICK: dict[str, Any] = {
    **SMALL,
    "train.max_epochs": 25,
    "evaluate.annealing": {"chains": 512, "temperatures": 4, "leapfrog_steps": 1, "bounds_examples": 10},
}


def environment(**more: str) -> dict[str, str]:
    """What commands are given: as `make repro` does, with states that are saved often."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHONWARNINGS": "ignore::FutureWarning", "EVIDENCE_SAVE_SECONDS": "0.2"}
    return {name: value for name, value in os.environ.items() if name != "EVIDENCE_TRACKING"} | ours | more


def wait_for(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(TICK)


class Start:
    """A command in a session of its own; what it and its children say goes to a file."""

    def __init__(self, folder: Path, log: Path, command: list[str], environment: Mapping[str, str]) -> None:
        self.command, self._log = command, log
        with log.open("wb") as file:
            self.process = psutil.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self) -> int:
        """Its exit status."""
        return int(self.process.wait(SECONDS))

    def stage(self, name: str) -> psutil.Process | None:
        """The process of a stage, once it runs; None if DVC ends without it."""
        found: list[psutil.Process] = []

        def look() -> bool:
            with suppress(psutil.NoSuchProcess):
                children = self.process.children(recursive=True)
                found.extend(child for child in children if _words(child)[-1:] == [f"pipeline.{name}"])
            return bool(found) or not is_alive(self.process)

        wait_for(look)
        return found[0] if found else None

    def at(self, name: str, seconds: float, act: Callable[[psutil.Process], object]) -> bool:
        """Act once a stage has run for so long; false if it has ended before."""
        stage = self.stage(name)
        if stage is None:
            return False
        wait_for(lambda: not is_alive(stage) or time.time() > stage.create_time() + seconds)
        alive = is_alive(stage)
        if alive:
            act(stage)
        return alive

    def end(self) -> None:
        """Kill it and all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _hear_interrupts() -> None:
    """Ctrl-C must not be ignored, as it is by what a shell starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


class Laboratory:
    """The experiment, prepared, and as it ends without a fault; made in ``folder``, or found there.

    Attributes:
        prepared: A repository in which the first stage has run.
        reference: One in which all have.
        seconds: That each stage took.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.prepared, self.reference = folder, folder / "prepared", folder / "reference"
        measured = folder / "seconds.json"
        if not measured.exists():
            self.reference.mkdir(parents=True)
            clone = Clone(self.reference)
            write_params(clone.folder, **settings)
            clone.commit("settings")
            measured.write_text(json.dumps(self._run(clone)))
        self.seconds: dict[str, float] = json.loads(measured.read_text())

    def _run(self, clone: Clone) -> dict[str, float]:
        clone.run("dvc", "repro", "prepare")
        shutil.rmtree(clone.folder / ".evidence", ignore_errors=True)
        shutil.copytree(clone.folder, self.prepared, symlinks=True)
        start = Start(clone.folder, self.folder / "reference.log", ["dvc", "repro"], environment())
        try:
            seconds = {name: _seconds(start, name) for name in STAGES}
            assert start.wait() == 0, start.said
        finally:
            start.end()
        return seconds

    def moment(self, share: float) -> tuple[str, float]:
        """The stage, and the seconds from its start, at this share of the time of all stages."""
        seconds = share * sum(self.seconds.values())
        for name in STAGES[:-1]:
            if seconds < self.seconds[name]:
                return name, seconds
            seconds -= self.seconds[name]
        return STAGES[-1], seconds

    def lend(self, stage: str, folder: Path) -> None:
        """Let DVC find a stage in the run-cache of another repository."""
        ours, theirs = self.reference / ".dvc/cache", folder / ".dvc/cache"
        for entry in ours.glob("runs/*/*/*"):
            if f"pipeline.{stage}" in entry.read_text():
                shutil.copytree(entry.parent, theirs / entry.parent.relative_to(ours), dirs_exist_ok=True)
                for md5 in re.findall(r"md5: (\S+)", entry.read_text().partition("outs:")[2]):
                    _copy_object(md5, ours / "files/md5", theirs / "files/md5")


class QuickLaboratory(Laboratory):
    """One whose stages run in one process, without DVC, which is told of their outputs afterwards."""

    def _run(self, clone: Clone) -> dict[str, float]:
        shutil.copytree(clone.folder, self.prepared, symlinks=True)
        clone.run_all(**environment())
        self.lend("prepare", self.prepared)
        return {}


def _copy_object(md5: str, source: Path, target: Path) -> None:
    """An object of DVC's cache, with those that it lists if it is a folder."""
    path = Path(md5[:2]) / md5[2:]
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / path, target / path)
    if md5.endswith(".dir"):
        for entry in json.loads((source / path).read_text()):
            _copy_object(entry["md5"], source, target)


def _seconds(start: Start, name: str) -> float:
    process = start.stage(name)
    assert process is not None, start.said
    began = process.create_time()
    wait_for(lambda: not is_alive(process))
    return time.time() - began


@dataclass
class Fault:
    """One that was injected, and whether its trial ended right."""

    name: str
    survived: bool = False
    bytes: bool = False
    run: bool = False
    seconds: float = 0.0


class Trial(Repository):
    """A fresh copy of the prepared experiment, started again and again until it ends.

    Args:
        laboratory: Of the experiment.
        folder: For the copy.
        logs: A folder for what commands say.
        environment: Of the commands.
    """

    def __init__(self, laboratory: Laboratory, folder: Path, logs: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.laboratory, self._logs, self._environment = laboratory, logs, dict(environment)
        self.starts: list[Start] = []
        self.faults: list[Fault] = []
        self._saved: list[tuple[int, str, int]] = []
        self._survivors: list[tuple[psutil.Process, Start]] = []
        self._began = time.monotonic()
        shutil.copytree(laboratory.prepared, folder, symlinks=True)

    @property
    def shown(self) -> Shown:
        uri = self._environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{self.folder / 'mlflow.db'}")
        return Shown(uri, self._environment.get("MLFLOW_EXPERIMENT_NAME", "evidence"))

    @property
    def said(self) -> str:
        return "\n".join(f"--- {shlex.join(start.command)}\n{start.said}" for start in self.starts)

    @contextmanager
    def given(self, **more: str) -> Iterator[None]:
        """More of an environment for the commands within the block."""
        before = self._environment
        self._environment = before | more
        yield
        self._environment = before

    def begin(self) -> Start:
        """Begin what `make repro` does: mend what a killed DVC has left, then DVC."""
        said = self.mend()
        for stage in [stage for stage, _ in self._survivors if is_alive(stage)]:
            assert f"process {stage.pid} (" in said, said
        return self.start("dvc", "repro")

    def mend(self) -> str:
        """Mend what a killed DVC has left; what is said of it."""
        mending = self.start("python", "-m", "pipeline.recover")
        assert mending.wait() == 0, mending.said
        return mending.said

    def publish(self) -> Start:
        """Begin what `make publish` does."""
        return self.start("python", "-m", "pipeline.publish")

    def note(self, fault: str, stage: str) -> None:
        """Note a fault, and how far the saved state of its stage is, which the starts to come must go on from."""
        self.faults.append(Fault(f"{fault}, {stage}"))
        self._saved.append((len(self.starts), stage, self.saved(stage)))

    def leave(self, stage: psutil.Process, start: Start) -> None:
        """A stage goes on though its DVC was killed: starts to come must name it, and wait for it."""
        self._survivors.append((stage, start))

    def saved(self, stage: str) -> int:
        """How much the saved state of a stage holds: epochs, or files of pieces; what is damaged does not count."""
        if stage == "evaluate":
            found = [path for path in self.states(stage) if Saved(path.parent).load(path.stem)]
            return len(found)
        folders = {path.parent for path in self.states(stage)}
        states = filter(None, (Saved(folder).load("training") for folder in folders))
        return max((int(state["epoch"]) + 1 for state in states), default=0)

    def saved_since(self, stage: str, when: int) -> bool:
        """Whether a stage has saved anything since a time in nanoseconds."""
        return any(_written(path) > when for path in self.states(stage))

    def states(self, stage: str) -> list[Path]:
        """The files of a stage's saved state, oldest first."""
        found = [path for path in self._states.glob(f"{stage}-*/*") if path.suffix in (".state", ".previous")]
        return sorted(found, key=_written)

    @property
    def _states(self) -> Path:
        return self.folder / ".evidence/saved"

    def finish(self) -> None:
        """Start once more, let it end, publish, and compare with the experiment that met no fault."""
        ended = [*self._failures(), *self._not_continued(), *self._left()]
        others, wrong = list(self._other_bytes()), list(self._wrong_runs())
        for fault in self.faults:
            fault.survived, fault.bytes, fault.run = not ended, not others, not wrong
            fault.seconds = time.monotonic() - self._began
        assert not [*ended, *others, *wrong], "\n".join([*ended, *others, *wrong, "", self.said])
        shutil.rmtree(self.folder)

    def end(self) -> None:
        """Kill what still runs."""
        for start in self.starts:
            start.end()

    def start(self, *command: str) -> Start:
        """Begin a command."""
        log = self._logs / f"{self.folder.name}-{len(self.starts)}.log"
        self.starts.append(Start(self.folder, log, list(command), self._environment))
        return self.starts[-1]

    def _failures(self) -> Iterator[str]:
        for begin in (self.begin, self.publish):
            last = begin()
            yield from self._meetings(last)
            if status := last.wait():
                yield f"{shlex.join(last.command)} ended with {status}"

    def _meetings(self, start: Start) -> Iterator[str]:
        """Whether a stage begins to work while another process works on it, which ends by saying what came out."""
        for stage, first in self._survivors:
            while _works(stage, first):
                said = start.said
                if re.search("going on (after|with)|trained|evaluated", said) and _works(stage, first):
                    yield f"two processes at once: {said}"
                    break
                time.sleep(TICK)

    def _not_continued(self) -> Iterator[str]:
        for first, stage, done in self._saved:
            said = "\n".join(start.said for start in self.starts[first:])
            pattern = r"going on after epoch (\d+)" if stage == "train" else r"going on with (\d+) parts"
            found = max((int(number) + (stage == "train") for number in re.findall(pattern, said)), default=0)
            if found < done and f"Running stage '{stage}'" in said:
                yield f"{stage} had saved {done} and went on from {found}"

    def _left(self) -> Iterator[str]:
        yield from (f"left: {path}" for path in [*self._states.glob("*"), *self.folder.rglob("*.partial")])

    def _other_bytes(self) -> Iterator[str]:
        reference = Repository(self.laboratory.reference)
        if (self.folder / "dvc.lock").read_bytes() != (reference.folder / "dvc.lock").read_bytes():
            yield "another dvc.lock"
        here, there = self.outputs(), reference.outputs()
        paths = (path for path in sorted({*here, *there}) if not path.endswith(".gitignore"))  # DVC's, which it edits
        yield from (f"other bytes: {path}" for path in paths if here.get(path) != there.get(path))

    def _wrong_runs(self) -> Iterator[str]:
        reference = Shown(f"sqlite:///{self.laboratory.reference / 'mlflow.db'}")
        runs = self.shown.runs()
        if [run.info.status for run in runs] != ["FINISHED"]:
            yield f"runs: {[(run.info.status, run.data.tags.get('evidence.digest')) for run in runs]}"
        for run in runs:
            steps = [step for step, _ in self.shown.curve(run, "valid/elbo")]
            if steps != list(range(len(steps))) or not steps:
                yield f"epochs: {steps}"
        yield from (f"the run differs in {path}" for path in _differences(self.shown.comparable(), reference.comparable()))


def _works(stage: psutil.Process, start: Start) -> bool:
    return is_alive(stage) and not re.search(r"(trained|evaluated) \d", start.said)


def _written(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if it has gone."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Paths to what differs in nested dictionaries and tuples."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _differences(one.get(key), other.get(key), f"{path}/{key}")
    elif one != other:
        yield path
