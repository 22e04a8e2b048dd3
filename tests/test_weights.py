"""The reduction of log weights as they come: sums, errors, ladder and tail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import genpareto

from tests.anchors import LinearGaussian
from vae.evidence import importance_sampling, prior_sampling
from vae.evidence.pareto import pareto_k, tail_length
from vae.evidence.weights import LogWeights, require_rungs

CPU = torch.device("cpu")


def reduced(log_weights: torch.Tensor, pieces: list[int], rungs: tuple[int, ...] = ()) -> LogWeights:
    """The weights (S, N), added in pieces of these sizes, over and over."""
    weights = LogWeights(log_weights.shape[1], len(log_weights), CPU, rungs=rungs)
    start = 0
    while start < len(log_weights):
        for size in pieces:
            weights.add(log_weights[start : start + size])
            start += size
    return weights


def normal(S: int, N: int = 3, scale: float = 3.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Log weights around -900."""
    return scale * torch.randn(S, N, generator=torch.Generator().manual_seed(0), dtype=dtype) - 900


@pytest.mark.parametrize("S", [1, 9, 10, 19, 20, 1003])
@pytest.mark.parametrize("pieces", [[5000], [7, 128], [1]])
def test_sums_against_numpy(S: int, pieces: list[int]) -> None:
    log_weights = normal(S)
    found, flat = reduced(log_weights, pieces).estimate(), log_weights.numpy()
    np.testing.assert_allclose(found.log_likelihood, logsumexp(flat, axis=0) - np.log(S), rtol=1e-13)
    expected = np.exp(2 * logsumexp(flat, axis=0) - logsumexp(2 * flat, axis=0))
    np.testing.assert_allclose(found.effective_sample_size, expected, rtol=1e-9)
    blocks = S if S < 20 else 10
    kept = [np.delete(flat, slice(S * b // blocks, S * (b + 1) // blocks), axis=0) for b in range(blocks)]
    without = [logsumexp(rest, axis=0) - np.log(len(rest)) for rest in kept] if S >= 10 else np.zeros((0, 3))
    np.testing.assert_allclose(found.leave_one_out, without, rtol=1e-12)
    assert math.isnan(found.monte_carlo_error) == (S < 10)


def test_float32_weights_accumulate_in_float64() -> None:
    """A float32 sum would be off by 1e-7 or more."""
    log_weights = normal(25_600, scale=30, dtype=torch.float32)
    found, flat = reduced(log_weights, [128]).estimate(), log_weights.double().numpy()
    np.testing.assert_allclose(found.log_likelihood, logsumexp(flat, axis=0) - np.log(len(flat)), rtol=1e-13)


@pytest.mark.parametrize("pieces", [[5000], [128], [7, 1, 300], [1]])
def test_ladder_against_numpy(pieces: list[int]) -> None:
    """Rungs that pieces cut anywhere, and that never decrease, for any row."""
    log_weights, rungs = normal(2400), (1, 4, 12, 240, 2400)
    found = reduced(log_weights, pieces, rungs).estimate().ladder
    for s in rungs:
        blocks = logsumexp(log_weights.numpy().reshape(-1, s, 3), axis=1) - np.log(s)
        np.testing.assert_allclose(found[s], blocks.mean(axis=0), rtol=1e-13)
    rises = torch.stack([found[s] for s in rungs]).diff(dim=0)
    assert (rises >= 0).all()


def test_the_ladder_ends_at_the_estimate_and_begins_at_the_sampled_elbo() -> None:
    model = LinearGaussian(2, 5, 1.0)
    found = importance_sampling(model.vae, model.y, 1000, ladder=[1, 10])
    assert list(found.ladder) == [1, 10, 1000]
    torch.testing.assert_close(found.ladder[1000], found.log_likelihood, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.log_likelihood, importance_sampling(model.vae, model.y, 1000).log_likelihood)
    assert (torch.stack(list(found.ladder.values())).diff(dim=0) >= 0).all()


@pytest.mark.parametrize("rungs", [[3, 10], [0, 10], [10, 5], [1, 7]])
def test_rungs_must_divide(rungs: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"every rung of the ladder must be at least 1 and divide the next.*got \d+ before \d+"
    ):
        require_rungs(rungs, 20)


@pytest.mark.parametrize("pieces", [[5000], [128], [1, 300]])
def test_the_tail_is_the_largest_weights(pieces: list[int]) -> None:
    """Whatever the pieces, Pareto k is that of the sorted weights."""
    log_weights = normal(2500)
    largest = log_weights.sort(dim=0, descending=True).values[: tail_length(2500) + 1]
    torch.testing.assert_close(reduced(log_weights, pieces).estimate().pareto_k, pareto_k(largest))
    assert tail_length(2500) == 150
    assert tail_length(5000) == 213  # 3 sqrt 5000 = 212.1
    assert tail_length(101) == 21
    assert tail_length(100) == 20
    assert tail_length(99) == 0


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_pareto_weights(k: float) -> None:
    """Weights with a known tail: the mean of 200 fits is k, drawn towards 1/2 by the prior, within four standard errors."""
    log_weights = np.log(genpareto.rvs(k, loc=1 / k, size=(10_000, 200), random_state=0))
    M = tail_length(10_000)
    largest = torch.tensor(np.sort(log_weights, axis=0)[::-1][: M + 1].copy())
    found = pareto_k(largest)
    shrunk = (M * k + 5) / (M + 10)
    assert abs(found.mean().item() - shrunk) < 4 * found.std().item() / np.sqrt(200) + 0.01


def test_pareto_k_against_arviz() -> None:
    """The same fit as ArviZ's PSIS, for light, heavy and very heavy tails. 3 sqrt S is whole: arviz-stats 0.8 rounds down."""
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    for scale in (0.5, 1.5, 4.0):
        log_weights = normal(2500, scale=scale)
        _, expected = array_stats.psislw(-log_weights.numpy(), axis=0)  # it weighs by minus what it is given
        np.testing.assert_allclose(reduced(log_weights, [128]).estimate().pareto_k, expected, atol=1e-6)


def test_pareto_k_of_equal_weights_is_zero_and_of_few_is_not_defined() -> None:
    """q equal to the posterior: estimates are exact at S = 1, all samples count, and nothing is unreliable."""
    model = LinearGaussian(1, 4, 0.3, widen=1.0)
    found = importance_sampling(model.vae, model.y, 200)
    assert (found.pareto_k == 0).all()
    assert not found.unreliable.any()
    assert importance_sampling(model.vae, model.y, 99).pareto_k.isnan().all()
    single = importance_sampling(model.vae.float(), model.y.float(), 200)
    assert (single.pareto_k == 0).all()


@pytest.mark.parametrize("c", [0.3, 0.5, 0.8])
def test_pareto_k_of_a_narrow_proposal(c: float) -> None:
    """One latent dimension, q with c < 1 times the posterior's variance: k = 1 - c.

    P(w > t) is t^(-1 / k) over the root of log t, so that k is approached from below: 0.06 for S = 100,000, over 50 rows.
    """
    model = LinearGaussian(1, 4, 0.3, widen=math.sqrt(c), N=50)
    found = importance_sampling(model.vae, model.y, 100_000)
    assert found.pareto_k.mean().item() == pytest.approx(1 - c, abs=0.1)
    assert found.unreliable.any() == (c < 0.4)


def test_the_threshold_of_pareto_k() -> None:
    model = LinearGaussian(1, 4, 0.3, N=2)
    thresholds = {S: importance_sampling(model.vae, model.y, S).pareto_threshold for S in (1, 100, 5000)}
    assert math.isnan(thresholds[1])
    assert thresholds[100] == pytest.approx(0.5)
    assert thresholds[5000] == pytest.approx(0.7)


def test_a_condensed_estimate_has_the_same_errors() -> None:
    model = LinearGaussian(1, 4, 0.3, widen=1.5)
    found = importance_sampling(model.vae, model.y, 50, ladder=[10])
    condensed = found.condensed()
    assert condensed.leave_one_out.shape == (2, len(model.y))
    assert found.leave_one_out.shape[0] > 2
    torch.testing.assert_close(condensed.monte_carlo_variance, found.monte_carlo_variance, rtol=1e-6, atol=0)
    assert condensed.monte_carlo_error == pytest.approx(found.monte_carlo_error, rel=1e-6)
    torch.testing.assert_close(condensed.shifted(found.log_likelihood).leave_one_out.mean(dim=0), 2 * found.log_likelihood)
    few = importance_sampling(model.vae, model.y, 5)
    assert few.condensed() is few
    shared = prior_sampling(model.vae, model.y, 50)
    assert shared.condensed() is shared
