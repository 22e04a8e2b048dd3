"""Workers: the same bytes for any number of them, one that is killed is replaced once, and all end when they are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.evaluation.workers import Workers, workers_here
from pipeline.stages import evaluate, prepare, train
from tests.workspace import ROOT, mixed_table, table, write_params, write_table

SLOW = {"chains": 10, "temperatures": 20_000, "leapfrog_steps": 2, "bounds_examples": 5}


def test_as_many_workers_as_asked_or_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_here(5) == 1  # as tests set it
    monkeypatch.setenv("EVIDENCE_WORKERS", "3")
    assert workers_here(5) == 3
    for wrong in ("0", "many", "-1"):
        monkeypatch.setenv("EVIDENCE_WORKERS", wrong)
        with pytest.raises(InputError, match=f"EVIDENCE_WORKERS must be a number of processes, at least 1; got '{wrong}'"):
            workers_here(5)
    monkeypatch.delenv("EVIDENCE_WORKERS")
    assert workers_here(5) == 5
    assert 1 <= workers_here(None) <= len(os.sched_getaffinity(0))


def power(given: int, exponent: int, seconds: float = 0.0) -> tuple[int, int, int]:
    time.sleep(seconds)
    return given**exponent, torch.get_num_threads(), os.getpid()


def killed(given: int, times: Path, exponent: int, number: int) -> int:
    """Ends its process by a signal, as often as the file has lines to lose."""
    with times.open("r+") as file:
        left = file.readlines()
        file.seek(0)
        file.truncate()
        file.writelines(left[1:])
    if left:
        os.kill(os.getpid(), number)
    return given**exponent


def refused(given: int) -> None:
    raise InputError(f"not {given}")


@pytest.mark.parametrize("count", [1, 3])
def test_calls_give_what_they_give_in_order(count: int) -> None:
    calls = [(f"call {k}", partial(power, exponent=k, seconds=0.2 * (k == 0))) for k in range(12)]
    with Workers(count, 2) as workers:
        found = list(workers.in_order(calls))
        assert sorted(name for name, _ in workers.compute(calls)) == sorted(name for name, _ in calls)
        with pytest.raises(InputError, match="not 2"):
            list(workers.compute([("refused", refused)]))
    powers, threads, processes = zip(*found, strict=True)
    assert list(powers) == [2**k for k in range(12)]
    assert set(threads) == {1}
    assert (os.getpid() in processes) == (count == 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_killed_worker_is_replaced_and_its_call_made_again_once(tmp_path: Path, number: signal.Signals) -> None:
    lives = tmp_path / "lives"

    def found(times: int) -> dict[str, Any]:
        lives.write_text("life\n" * times)
        calls = [(f"call {k}", partial(power, exponent=k)) for k in range(6)]
        calls.insert(2, ("fatal", partial(killed, times=lives, exponent=9, number=number)))
        with Workers(2, 2) as workers:
            return dict(workers.compute(calls))

    once = found(1)
    assert once.pop("fatal") == 2**9
    assert {name: result[0] for name, result in once.items()} == {f"call {k}": 2**k for k in range(6)}
    with pytest.raises(InputError, match=r"a process was killed while it computed .*, and so was the one that replaced it"):
        found(2)


@pytest.mark.parametrize("counts", [[2], pytest.param([3, 5], marks=pytest.mark.slow)])
def test_results_do_not_depend_on_the_number_of_workers(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, counts: list[int]
) -> None:
    """Of a table with gaps, with rows that run longer, and blocks of a few rows each."""
    write_table(workspace, mixed_table(rows=300, gaps=True))
    annealing = {"chains": 10, "temperatures": 6, "leapfrog_steps": 1, "bounds_examples": 20, "extra": 6.0}
    write_params(workspace, **{"model.likelihood": {"name": "mixed"}, "evaluate.annealing": annealing})
    monkeypatch.setattr("pipeline.evaluation.estimation.rows_per_block", lambda vae, draws: 7)
    monkeypatch.setenv("EVIDENCE_FRESH", "1")  # or one would go on with what another has computed
    prepare.main()
    train.main()

    def made(count: int) -> dict[str, bytes]:
        monkeypatch.setenv("EVIDENCE_WORKERS", str(count))
        evaluate.main()
        return {path.name: path.read_bytes() for path in Path("results/evaluate").iterdir()}

    expected = made(1)
    assert {"examples.parquet", "imputed.csv", "metrics.json"} <= expected.keys()
    monkeypatch.setattr("pipeline.tables.slices.AT_A_TIME", 50)  # nor on how many rows are looked at together
    for count in counts:
        assert made(count) == expected


def started(stage: str, workers: int) -> subprocess.Popen[str]:
    """A stage that would take minutes, once it computes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EVIDENCE_WORKERS": str(workers), "EVIDENCE_SAVE_SECONDS": "1"}
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(busy(process.pid)) < workers or not list(Path(".evidence/saved").glob(f"{stage}-*/*.state")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def busy(pid: int) -> list[psutil.Process]:
    """A process and its workers, if they have computed for some seconds."""
    family = [process := psutil.Process(pid), *process.children(recursive=True)]
    return [member for member in family if member.is_running() and sum(member.cpu_times()[:2]) > 3]


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Tell a stage to end, which it must do within five seconds, with its workers; what it says."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, said = process.communicate(timeout=5)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not psutil.wait_procs(family, timeout=5)[1]
    return said


TOLD = "was interrupted; run it again to go on from its last saved state"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGINT, signal.SIGKILL))]
)
def test_an_evaluation_ends_with_its_workers_and_keeps_what_is_done(workspace: Path, number: signal.Signals) -> None:
    write_table(workspace, table(rows=200))
    write_params(workspace, **{"evaluate.annealing": SLOW, "evaluate.estimators": ["importance", "annealed"]})
    prepare.main()
    train.main()
    said = end(started("evaluate", 2), number)
    assert (TOLD in said) == (number != signal.SIGKILL)


def test_a_training_ends_at_once_in_a_long_epoch(workspace: Path) -> None:
    write_table(workspace, table(rows=2000))
    write_params(workspace, **{"train.max_epochs": 40, "train.batch_size": 1})
    prepare.main()
    assert TOLD in end(started("train", 1), signal.SIGTERM)
    assert not Path("models/model.safetensors").exists()
