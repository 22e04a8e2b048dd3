"""The verdict on some kinds of problems, with few chains; `benchmarks/verdict.py` takes all of them, and several seeds."""

from __future__ import annotations

import warnings

import pytest

from tests.adversaries import KINDS
from vae.evidence import Annealing, assess

TOLERANCE = 0.2  # nats
SOUND = [
    "linear_1",
    "linear_4",
    "linear_full_covariance",
    "mixture_close",
    "mixture_covered",
    "line_counts",
    "line_helix",
    "trained_log_normal",
]
TRAPS = [
    "linear_overconfident_100",
    "linear_shifted",
    "mixture_blind_minor",
    "mixture_rare",
    "line_absolute",
    "line_large_counts",
    "line_tilted",
    "lock_4",
]


def judged(name: str) -> tuple[bool, float]:
    """Whether the estimate is trusted, and how far its mean is off."""
    problem = KINDS[name](0)
    settings = {"chains": 8, "annealing": Annealing(temperatures=100, leapfrog_steps=5), "bounds_examples": 30}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they tell of traps, which these are
        assessment = assess(problem.vae, problem.y, pilot=problem.pilot, tolerance=TOLERANCE, **settings)
    return assessment.verdict.trusted, assessment.mean.mean - float(problem.log_likelihood.mean())


@pytest.mark.parametrize("name", TRAPS)
def test_what_is_wrong_is_not_trusted(name: str) -> None:
    trusted, error = judged(name)
    assert not trusted or abs(error) <= TOLERANCE


def test_what_is_right_is_mostly_trusted() -> None:
    outcomes = {name: judged(name) for name in SOUND}
    assert all(abs(error) <= TOLERANCE for trusted, error in outcomes.values() if trusted)
    assert sum(trusted for trusted, _ in outcomes.values()) >= len(SOUND) - 2
