"""DVC experiments that are killed: the command that is explained goes on from the saved state, into the same run."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.clones import Repository
from tests.faults.laboratory import Laboratory, Trial, wait_for
from tests.guard import is_alive

pytestmark = [
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.filterwarnings("default"),  # MLflow uses what SQLAlchemy and others deprecate
    pytest.mark.usefixtures("tracked"),
]

RUN = ["dvc", "exp", "run", "-n", "brave-otter", "-S", "generate.samples=21"]  # training and evaluation as in the reference
FOLDERS = ("models/", "results/train/", "results/evaluate/")


def in_folder(folder: Path) -> Iterator[psutil.Process]:
    """The processes that work in a folder or below."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                yield process
        except psutil.Error:
            pass


def kill_in_training(trial: Trial) -> None:
    """Once training has saved its state, kill all that works for the experiment: DVC, its workers, and the stage."""
    wait_for(lambda: trial.saved("train"))
    victims = list(in_folder(trial.folder))
    assert any("pipeline.train" in victim.cmdline() for victim in victims)
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, victims)))
    trial.note("SIGKILL to an experiment", "train")


def ends_as_the_reference(trial: Trial) -> None:
    """Same bytes of what does not depend on the experiment's params, and one run."""
    here, there = trial.outputs(), Repository(trial.laboratory.reference).outputs()
    compared = {path for path in there if path.startswith(FOLDERS) and not path.endswith(".gitignore")}
    assert {path for path in compared if here.get(path) != there[path]} == set()
    published = trial.publish()
    assert published.wait() == 0, published.said
    assert [(run.info.run_name, run.info.status) for run in trial.shown.runs()] == [("brave-otter", "FINISHED")]
    steps = [step for step, _ in trial.shown.curve(trial.shown.runs()[0], "valid/elbo")]
    assert steps == list(range(len(steps)))
    assert steps
    for fault in trial.faults:
        fault.survived = fault.bytes = fault.run = True


def explained(said: str) -> list[list[str]]:
    """The commands that are to be given, in their order."""
    return [shlex.split(command) for command in re.findall(r"`(dvc exp run [^`]*|dvc queue start|git checkout [^`]*)`", said)]


@pytest.mark.parametrize("options", [[], ["--temp"]], ids=["workspace", "temp"])
def test_a_killed_experiment_goes_on(options: list[str], laboratory: Laboratory, trial: Callable[[Laboratory], Trial]) -> None:
    once = trial(laboratory)
    start = once.start(*RUN, *options)
    kill_in_training(once)
    start.wait()
    for command in (commands := explained(once.mend())):
        again = once.start(*command)
        assert again.wait() == 0, again.said
    assert commands[-1][:3] == ["dvc", "exp", "run"]
    assert "going on after epoch" in again.said
    if options:
        once.run("dvc", "exp", "apply", "brave-otter")
    ends_as_the_reference(once)


def test_a_killed_worker_goes_on(laboratory: Laboratory, trial: Callable[[Laboratory], Trial]) -> None:
    once = trial(laboratory)
    for command in ([*RUN, "--queue"], ["dvc", "queue", "start"]):
        assert once.start(*command).wait() == 0, once.said
    kill_in_training(once)
    assert ["dvc", "queue", "start"] in explained(once.mend())
    assert once.start("dvc", "queue", "start").wait() == 0, once.said
    wait_for(lambda: "Success" in once.run("dvc", "queue", "status"))
    assert "going on after epoch" in once.run("dvc", "queue", "logs", "brave-otter")
    once.run("dvc", "exp", "apply", "brave-otter")
    ends_as_the_reference(once)
