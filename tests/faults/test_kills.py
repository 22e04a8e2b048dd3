"""Killed anywhere in training or evaluation, the experiment ends with the bytes and the run of one that was not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from signal import SIGKILL, SIGTERM, Signals

import numpy as np
import psutil
import pytest

from tests.faults.kills import Kill, Victim, inflict, plan, suffer
from tests.faults.laboratory import STAGES, Laboratory, Trial, wait_for
from tests.guard import is_alive
from tests.mlflow_store import statuses

pytestmark = [
    pytest.mark.filterwarnings("default"),  # MLflow uses what SQLAlchemy and others deprecate
    pytest.mark.usefixtures("tracked"),
]

SEED, KILLS = int(os.environ.get("FAULTS_SEED", "0")), int(os.environ.get("FAULTS_KILLS", "50"))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("kill", plan(SEED, KILLS), ids=str)
def test_a_kill_at_a_random_moment(kill: Kill, laboratory: Laboratory, trial: Callable[[Laboratory], Trial]) -> None:
    """The last stage, which is not hit, comes from DVC's run-cache, so that publishing completes the run."""
    once = trial(laboratory)
    while not suffer(once, kill):
        once.end()
        once, kill = trial(laboratory), kill.earlier()
    laboratory.lend("generate", once.folder)
    once.finish()


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("seconds", np.random.default_rng(SEED).uniform(0, 1.5, 3))
def test_a_kill_while_dvc_records(
    stage: str, seconds: float, laboratory: Laboratory, trial: Callable[[Laboratory], Trial]
) -> None:
    """The stage has ended: DVC reads its outputs, writes its caches and dvc.lock, or starts the next one."""
    once = trial(laboratory)
    start = once.begin()
    process = start.stage(stage)
    assert process is not None, start.said
    wait_for(lambda: not is_alive(process))
    time.sleep(seconds)
    os.killpg(start.process.pid, SIGKILL)
    start.wait()
    once.note("SIGKILL to DVC as it records", stage)
    laboratory.lend("generate", once.folder)
    once.finish()


FIVE: list[tuple[str, Victim, Signals]] = [
    ("train", "stage", SIGKILL),
    ("train", "group", SIGTERM),
    ("train", "DVC", SIGKILL),
    ("evaluate", "stage", SIGKILL),
    ("evaluate", "group", SIGKILL),
]


@pytest.mark.slow
def test_five_kills_of_one_experiment(quick: Laboratory, trial: Callable[[Laboratory], Trial]) -> None:
    """One of each kind, one after another, each up to half a second after its start has saved something."""
    once, moments = trial(quick), np.random.default_rng(SEED).uniform(0, 0.5, len(FIVE))
    quick.lend("generate", once.folder)
    for (stage, victim, number), seconds in zip(FIVE, moments, strict=True):
        suffer_early(once, stage, Kill(victim, number, 0), seconds)
    once.finish()


@pytest.mark.slow
def test_told_to_end_as_schedulers_do(quick: Laboratory, trial: Callable[[Laboratory], Trial]) -> None:
    """SIGTERM to DVC, the stage and its workers at once; then to a worker alone, which is replaced."""
    once = trial(quick)
    quick.lend("generate", once.folder)
    with once.given(EVIDENCE_WORKERS="2"):
        for stage in STAGES:
            family = begun(once, stage)
            os.killpg(once.starts[-1].process.pid, SIGTERM)
            psutil.wait_procs(family, timeout=5)
            assert not list(filter(is_alive, family)), once.said
            assert statuses(once.folder / "mlflow.db") == ["KILLED"], once.said
            once.note("SIGTERM to all", stage)
        worker = begun(once, "evaluate")[-1]
        worker.terminate()
        assert once.starts[-1].wait() == 0, once.said
        assert not is_alive(worker)
        once.finish()


def begun(trial: Trial, stage: str) -> list[psutil.Process]:
    """The processes of a stage, which MLflow shows, and which has saved something since it was started."""
    start, before = trial.begin(), time.time_ns()
    process = start.stage(stage)
    assert process is not None, start.said
    wait_for(lambda: "RUNNING" in statuses(trial.folder / "mlflow.db") and trial.saved_since(stage, before))
    return [process, *process.children(recursive=True)]


def suffer_early(trial: Trial, stage: str, kill: Kill, seconds: float) -> None:
    """Start the experiment, and kill it so long after the stage has first saved its state."""
    start, before = trial.begin(), time.time_ns()
    process = start.stage(stage)
    assert process is not None, start.said
    wait_for(lambda: trial.saved_since(stage, before) or not is_alive(process))
    time.sleep(seconds)
    assert is_alive(process), start.said
    inflict(trial, kill, start, process)
    trial.note(str(kill), stage)
