"""What asks a process to end: it does within seconds, whatever it computes, leaves nothing half-written, and goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.stages import generate, prepare, train
from tests.mlflow_store import statuses
from tests.test_workers import TOLD, end
from tests.workspace import ROOT, table, write_params, write_table

IN_ONE_OPERATION = """
import sys
from pipeline.base import command
import torch
command.GRACE = float(sys.argv.pop())
torch.set_num_threads(1)

def work():
    a = torch.zeros(9000, 9000)
    print("begins", flush=True)
    a @ a @ a @ a

sys.exit(command.run("slow", "", work))
"""


@pytest.mark.parametrize(
    ("signals", "grace", "status"),
    [("TERM", 0.5, 143), ("INT", 0.5, 130), ("INT INT", 600, 130), ("TERM INT", 600, 143), ("TERM TERM", 1.0, 143)],
)
def test_a_process_ends_in_the_middle_of_a_long_operation(signals: str, grace: float, status: int) -> None:
    """Soon after the first signal, or at a second Ctrl-C; `timeout` sends its signal twice, which means no more than once."""
    command = [sys.executable, "-c", IN_ONE_OPERATION, str(grace)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    for name in signals.split():
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(getattr(signal, f"SIG{name}"))
    _, said = process.communicate(timeout=5)
    assert (process.returncode, said) == (status, f"stage slow {TOLD}\n")


def begun(stage: str, has_come: Callable[[], bool]) -> subprocess.Popen[str]:
    """A stage that has come so far."""
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EVIDENCE_SAVE_SECONDS": "0.2"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not has_come():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def wide(rows: int) -> pd.DataFrame:
    """A table that takes seconds."""
    return pd.concat([table(rows=rows).add_suffix(str(k)) for k in range(8)], axis=1)


def test_a_preparation_leaves_nothing_and_begins_anew(workspace: Path) -> None:
    write_table(workspace, wide(40_000))
    write_params(workspace)
    assert TOLD in end(begun("prepare", Path("data/prepared.blocks.partial").is_dir), signal.SIGTERM)
    assert [path.name for path in Path("data").iterdir()] == ["raw"]
    prepare.main()
    made = files("data/prepared")
    process = begun("prepare", Path("data/prepared.blocks.partial").is_dir)
    time.sleep(0.2)
    assert TOLD in end(process, signal.SIGTERM)
    assert files("data/prepared") == made  # of before
    prepare.main()
    assert files("data/prepared") == made


def test_generating_leaves_nothing_and_begins_anew(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace, **{"generate.samples": 200_000})
    prepare.main()
    train.main()
    assert TOLD in end(begun("generate", Path("results/generate.partial").is_dir), signal.SIGTERM)
    assert not list(Path("results").glob("generate*"))
    generate.main()
    made = files("results/generate")
    generate.main()
    assert files("results/generate") == made


@pytest.mark.filterwarnings("default")  # MLflow uses what SQLAlchemy and others deprecate
def test_the_run_of_a_stage_that_was_told_to_end_is_killed_and_goes_on(workspace: Path, tracked: None) -> None:
    write_table(workspace)
    write_params(workspace, **{"train.max_epochs": 1000})
    prepare.main()
    store = Path("mlflow.db")

    def has_begun() -> bool:
        return statuses(store) == ["RUNNING"] and any(Path(".evidence/saved").glob("train-*/*.state"))

    end(begun("train", has_begun), signal.SIGTERM)
    assert statuses(store) == ["KILLED"]
    train.main()
    assert statuses(store) == ["SCHEDULED"]  # for the stages to come
