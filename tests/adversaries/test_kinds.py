"""The kinds of problems themselves: enough of them, the same from the same seed, and log p(y) right by a second method."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import nn

from tests import oracles
from tests.adversaries import KINDS, Problem
from tests.adversaries.closed_forms import numpy
from tests.adversaries.quadrature import grid_log_likelihood
from tests.anchors import SIGMAS

Array = NDArray[np.float64]
DRAWS, CHECKED = 200_000, 8  # rows
BRUTE = [  # whose posteriors are wide enough for draws from the prior
    "linear_1",
    "linear_collapsed",
    "mixture_blind_minor",
    "mixture_close",
    "mixture_nested",
    "mixture_vamp",
    "line_absolute",
    "line_bits",
    "line_counts",
    "line_exponential",
    "line_heavy_tails",
    "line_square",
    "line_tilted",
    "line_waves_3",
    "plane_arms_quadrant",
    "plane_banana_3",
    "plane_noisy_funnel",
    "plane_prior_mixture",
    "island_in_reach",
    "line_needles_thin",
    "funnel_four",
    "funnel_two",
    "lock_open",
    "lock_8",
    "mixture_swallowed_2",
    "mixture_swallowed_deep",
    "spike_widths_little",
    "sum_sphere_8",
    "sum_waves",
]
AFFINE = {name for name in KINDS if name.startswith("trained_affine")}  # in closed form
LONG = {name for name in KINDS if name.startswith(("plane_", "island_", "sum_"))} - {"plane_banana", "island_near"}
TRAINED = sorted(name for name in KINDS if name.startswith("trained_"))


def slowly(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: one in three of those that do not take long is among the default tests."""
    quick = [name for name in sorted(names) if name not in LONG][::3]
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


@cache
def made(name: str) -> Problem:
    return KINDS[name](0)


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 40


@pytest.mark.parametrize("name", slowly(set(KINDS) - set(TRAINED)))
def test_rows_and_values(name: str) -> None:
    problem = made(name)
    N, D = problem.y.shape
    assert 30 <= N <= 100
    assert problem.pilot.shape[1] == D == problem.vae.card.data_dim
    assert problem.log_likelihood.shape == (N,)
    assert np.isfinite(problem.log_likelihood).all()
    assert problem.vae.dtype == problem.y.dtype == torch.float32
    assert not problem.vae.training
    assert problem.hidden == ("hidden" in name)


@pytest.mark.parametrize("name", ["linear_outliers", "mixture_rare", "line_waves", "plane_banana", "trained_poisson"])
def test_a_seed_makes_the_same_problem_and_another_seed_another(name: str) -> None:
    first, again, other = made(name), KINDS[name](0), KINDS[name](1)
    assert torch.equal(first.y, again.y)
    assert torch.equal(first.pilot, again.pilot)
    assert np.array_equal(first.log_likelihood, again.log_likelihood)
    assert not torch.equal(first.y, other.y)
    for one, two in zip(first.vae.state_dict().values(), again.vae.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", slowly(BRUTE))
def test_by_draws_from_the_prior(name: str) -> None:
    """Within four standard errors of the mean of p(y|z), for the three rows of eight with the most effective draws."""
    problem = made(name)
    log_weights = by_brute_force(problem)
    estimate, effective = logsumexp(log_weights, axis=0), np.exp(-logsumexp(2 * log_weights, axis=0))
    effective *= np.exp(2 * estimate)
    best = effective.argsort()[-3:]
    assert effective[best].min() > 100
    off = np.abs(estimate - np.log(DRAWS) - problem.log_likelihood[:CHECKED])[best]
    assert (off < SIGMAS / np.sqrt(effective[best])).all()


def by_brute_force(problem: Problem) -> Array:
    """log p(y|z) of draws from the prior (draws, rows) for the first rows, in float64."""
    generative: Any = problem.vae.generative
    z = problem.vae.prior().sample((DRAWS,), torch.Generator().manual_seed(7)).double()
    f = through(generative.network, numpy(generative.reads(z)))
    return log_densities(problem, f, CHECKED)


def log_densities(problem: Problem, f: Array, rows: int) -> Array:
    """By scipy, of the first rows under network outputs f (points, ...), (points, rows)."""
    likelihood: Any = deepcopy(problem.vae.generative.likelihood).double()
    name = problem.vae.card.likelihood["name"]
    y = numpy(problem.y)[:rows]
    return np.stack([oracles.log_prob(name, likelihood, f, row[None]).sum(axis=-1) for row in y], axis=-1)


def through(network: Any, x: Array) -> Array:
    """What the network makes of x, by numpy."""
    for layer in network:
        x = x @ numpy(layer.weight).T + numpy(layer.bias) if isinstance(layer, nn.Linear) else np.tanh(x)
    return x


@pytest.mark.parametrize("name", ["linear_1", "mixture_blind", "mixture_covered", "mixture_close"])
def test_closed_forms_by_quadrature(name: str) -> None:
    problem = made(name)
    size = problem.vae.card.latent_size
    values = grid_log_likelihood(problem.vae, problem.y, size=size, points=4001 if size == 1 else 401)
    np.testing.assert_allclose(values, problem.log_likelihood, atol=1e-5)


def test_a_product_of_lines_by_a_grid_over_the_plane() -> None:
    problem = made("line_square")
    values = grid_log_likelihood(problem.vae, problem.y, size=2, points=401)
    np.testing.assert_allclose(values, problem.log_likelihood, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(TRAINED) - AFFINE - {"trained_missing", "trained_briefly", "trained_outliers"}))
def test_trained_models_by_scipy(name: str) -> None:
    """A coarser grid, with scipy's densities and the network by numpy."""
    problem = made(name)
    K, axis = problem.vae.card.latent_size, np.linspace(-7, 7, 141)
    z = np.stack(np.meshgrid(*[axis] * K, indexing="ij"), axis=-1).reshape(-1, K)
    generative: Any = problem.vae.generative
    log_joint = log_densities(problem, through(generative.network, z), 3)
    log_joint += (-0.5 * (z**2).sum(axis=-1) - K / 2 * np.log(2 * np.pi) + K * np.log(axis[1] - axis[0]))[:, None]
    np.testing.assert_allclose(logsumexp(log_joint, axis=0), problem.log_likelihood[:3], atol=2e-3)


def test_missing_values_contribute_nothing() -> None:
    problem = made("trained_missing")
    assert problem.y.isnan().any()
    assert np.isfinite(problem.log_likelihood).all()


def test_a_grid_that_is_too_coarse_is_refused() -> None:
    problem = made("line_cubic")
    with pytest.raises(ArithmeticError, match="points must be more than 101"):
        grid_log_likelihood(problem.vae, problem.y, points=101)


def test_a_grid_that_is_too_small_is_refused() -> None:
    problem = made("line_far")
    with pytest.raises(ArithmeticError, match="reach must be more than 3"):
        grid_log_likelihood(problem.vae, problem.y, reach=3.0)
