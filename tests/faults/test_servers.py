"""A tracking server that ails: the experiment ends as if it did not, and publishing completes the run when it is back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import psutil
import pytest

from tests.clones import on_server
from tests.faults.laboratory import STAGES, Fault, Laboratory, Trial
from tests.services import bad_server, proxy

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("tracked")]

WARNING = "warning: MLflow does not show this stage"
Ailment = Literal["refuse", "hang", "drip", "500"]
AILMENTS: tuple[Ailment, ...] = ("refuse", "hang", "drip", "500")
WORDS = {"refuse": "dies", "hang": "hangs", "drip": "drips", "500": "answers 500"}
SHARES = np.random.default_rng(int(os.environ.get("FAULTS_SEED", "0"))).uniform(size=(len(STAGES), len(AILMENTS)))
CASES = [(stage, mode, False, float(SHARES[i, j])) for i, stage in enumerate(STAGES) for j, mode in enumerate(AILMENTS)]
KILLED = [(stage, mode, True, 0.8) for stage, mode in zip(STAGES, ("refuse", "hang"), strict=True)]


@pytest.mark.parametrize("mode", AILMENTS)
def test_a_server_that_is_ill_from_the_start(
    mode: Ailment, laboratory: Laboratory, trial: Callable[[Laboratory], Trial]
) -> None:
    once = trial(laboratory)
    with bad_server(mode) as uri, once.given(MLFLOW_TRACKING_URI=uri):
        start = once.begin()
        assert start.wait() == 0, start.said
        assert once.publish().wait() == 1
    assert start.said.count(WARNING) == 3
    once.faults.append(Fault(f"server {WORDS[mode]} from the start"))
    once.finish()


@pytest.mark.parametrize(("stage", "mode", "killed", "share"), [*CASES, *KILLED])
def test_a_server_that_falls_ill(
    stage: str,
    mode: Ailment,
    killed: bool,
    share: float,
    tracking_uri: str,
    laboratory: Laboratory,
    trial: Callable[[Laboratory], Trial],
) -> None:
    """At a random moment, and is ill until DVC has ended; a stage that is killed then is continued without it.

    A stage that runs faster than it was measured to may end before its moment comes: then it is struck earlier.
    """

    def survived(seconds: float) -> bool:
        once = trial(laboratory)
        with proxy(tracking_uri) as between, once.given(**on_server(tracking_uri) | {"MLFLOW_TRACKING_URI": between.uri}):

            def strike(process: psutil.Process) -> None:
                between.mode = mode
                if killed:
                    time.sleep(1)
                    process.kill()

            start = once.begin()
            if not start.at(stage, seconds, strike):
                start.wait()
                return False
            if killed:
                assert start.wait() != 0, start.said
                once.note(f"server {WORDS[mode]}, and SIGKILL to stage", stage)
                start = once.begin()
            else:
                once.faults.append(Fault(f"server {WORDS[mode]}, {stage}"))
            assert start.wait() == 0, start.said
            assert start.said.count(WARNING) <= 3
            between.mode = "pass"
            once.finish()
        return True

    assert any(survived(laboratory.seconds[stage] * share / part) for part in (1, 2, 4)), (
        "the stage ended before its moment came"
    )
