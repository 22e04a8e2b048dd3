"""A saved state that is damaged, or planted: it is refused, its code is not run, and the one before it counts."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.laboratory import STAGES, Laboratory, Trial, wait_for
from tests.guard import is_alive

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("tracked")]


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.trace,)


def truncated(state: bytes, trace: Path) -> bytes:
    return state[: len(state) // 2]


def flipped(state: bytes, trace: Path) -> bytes:
    at = len(state) // 3
    return state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :]


def pickled(state: bytes, trace: Path) -> bytes:
    """A plain pickle."""
    return _with_checksum(pickle.dumps({"epoch": Evil(trace)}))


def planted(state: bytes, trace: Path) -> bytes:
    """The state itself, with code in it."""
    content = torch.load(io.BytesIO(state.partition(b"\n")[2]), weights_only=True)
    buffer = io.BytesIO()
    torch.save({**content, "more": Evil(trace)}, buffer)
    return _with_checksum(buffer.getvalue())


def _with_checksum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("harm", [truncated, flipped, pickled, planted])
def test_a_state_that_was_harmed(
    stage: str,
    harm: Callable[[bytes, Path], bytes],
    laboratory: Laboratory,
    trial: Callable[[Laboratory], Trial],
    tmp_path: Path,
) -> None:
    once, trace = trial(laboratory), tmp_path / "trace"
    start = once.begin()
    process = start.stage(stage)
    assert process is not None, start.said
    wait_for(lambda: len(once.states(stage)) > 1 or not is_alive(process))
    process.kill()
    start.wait()
    newest = once.states(stage)[-1]
    newest.write_bytes(harm(newest.read_bytes(), trace))
    once.note(f"state {harm.__name__}", stage)
    once.finish()
    assert "was refused" in once.said
    assert not trace.exists()
