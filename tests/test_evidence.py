"""Estimators of log p(y) against exact answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from tests.anchors import LIKELIHOODS, LinearGaussian, rows_for, small_vae, within_error
from vae import VAE
from vae.evidence import (
    ESTIMATORS,
    bound,
    estimate,
    evidence_lower_bound,
    importance,
    importance_sampling,
    prior,
    prior_sampling,
)
from vae.noise import per_example

by_estimator = pytest.mark.parametrize("name", sorted(ESTIMATORS))


@by_estimator
@pytest.mark.parametrize(("K", "D", "variance"), [(1, 3, 0.5), (2, 5, 1.0), (4, 6, 2.0)])
def test_unbiased_on_the_natural_scale(name: str, K: int, D: int, variance: float) -> None:
    """E[exp(estimate - exact)] = 1 for an unbiased estimate of p(y).

    The log of one is biased, so it is not tested. Replicates use independent seeds; rows share draws, so a replicate is the
    mean over rows. False-alarm rate 6e-5. S = 300 and 400 replicates detect a bias of 2 % in p at the spread seen here.
    """
    model = LinearGaussian(K, D, variance)
    exact = model.log_likelihood
    ratios = [
        np.exp(ESTIMATORS[name](model.vae, model.y, 300, seed=seed).log_likelihood.numpy() - exact).mean()
        for seed in range(400)
    ]
    assert within_error(np.array(ratios), 1.0)
    assert np.std(ratios) / 20 < 0.02


def test_wrong_divisor_would_be_seen() -> None:
    """The check above fails for an estimate that divides by S + 10 % (the kind of error found in other libraries)."""
    model = LinearGaussian(1, 3, 0.5)
    wrong = np.log(1 / 1.1)
    ratios = [
        np.exp(
            importance_sampling(model.vae, model.y, 300, seed=s).log_likelihood.numpy() + wrong - model.log_likelihood
        ).mean()
        for s in range(400)
    ]
    assert not within_error(np.array(ratios), 1.0)


def test_importance_sampling_is_exact_where_q_is_the_posterior() -> None:
    model = LinearGaussian(1, 4, 0.3, widen=1.0)
    for S in (1, 7, 300):
        result = importance_sampling(model.vae, model.y, S)
        np.testing.assert_allclose(result.log_likelihood, model.log_likelihood, rtol=1e-10)
        np.testing.assert_allclose(result.effective_sample_size, S, rtol=1e-9)


def test_probabilities_of_all_binary_rows_add_up_to_one() -> None:
    """sum over all 2^D rows of E[estimate of p(y)] = 1. False-alarm rate 6e-5 an estimator."""
    vae = small_vae({"name": "bernoulli"}, D=5)
    y = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 5)
    for estimator in ESTIMATORS.values():
        totals = [estimator(vae, y, 100, seed=s).log_likelihood.exp().sum().item() for s in range(100)]
        # prior sampling shares its draws between rows, so each total is exactly 1
        assert np.allclose(totals, 1, atol=1e-9) or within_error(np.array(totals), 1.0)


@by_estimator
def test_latent_dimension_one_against_quadrature(name: str) -> None:
    """log p(y) = log of the integral of p(y|z) p(z) over a fine grid, for a nonlinear decoder; S large, 0.02 nats."""
    for options in LIKELIHOODS:
        vae, y = small_vae(options, K=1), rows_for(options, N=5)
        z = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None, None]
        with torch.no_grad():
            joint = vae.generative(z).log_prob(y) + vae.prior().log_prob(z)
        exact = logsumexp(joint.numpy(), axis=0) + np.log(18 / 4000)
        found = ESTIMATORS[name](vae, y, 40_000).log_likelihood.numpy()
        np.testing.assert_allclose(found, exact, atol=0.02)


@by_estimator
@pytest.mark.parametrize("S", [1, 127, 128, 129, 300])
def test_chunks_do_not_matter(name: str, S: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=7)
    whole, elbo = ESTIMATORS[name](vae, y, S), evidence_lower_bound(vae, y, S).elbo
    for module in (importance, prior, bound):
        monkeypatch.setattr(module, "rows_per_chunk", lambda vae, draws: 2)
    parts = ESTIMATORS[name](vae, y, S)
    torch.testing.assert_close(evidence_lower_bound(vae, y, S).elbo, elbo, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.log_likelihood, whole.log_likelihood, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.effective_sample_size, whole.effective_sample_size)
    assert whole.samples == S


@by_estimator
def test_rows_do_not_affect_each_other(name: str) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=6)
    order = torch.tensor([3, 0, 5])
    options: dict[str, Any] = {"ids": order} if name == "importance" else {}
    some = ESTIMATORS[name](vae, y[order], 200, **options).log_likelihood
    torch.testing.assert_close(some, ESTIMATORS[name](vae, y, 200).log_likelihood[order], rtol=1e-12, atol=1e-12)


def test_every_sample_counts_once() -> None:
    """Against a direct computation from the same noise, with S not a multiple of the block."""
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=3)
    S, ids = 150, torch.arange(3)
    with torch.no_grad():
        q = vae.inference(y)
        noise = torch.cat([per_example(0, "importance", ids, block, 2, like=y) for block in range(2)])[:S]
        z = q.transform(noise)
        log_weights = (vae.generative(z).log_prob(y) + vae.prior().log_prob(z) - q.log_prob(z)).numpy()
    found = importance_sampling(vae, y, S)
    np.testing.assert_allclose(found.log_likelihood, logsumexp(log_weights, axis=0) - np.log(S), rtol=1e-12)
    weights = np.exp(log_weights)
    np.testing.assert_allclose(found.effective_sample_size, weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0), rtol=1e-9)


def test_float32_weights_accumulate_in_float64() -> None:
    """200 blocks of float32 log weights add up to what numpy finds in float64; a float32 sum is off by 1e-7."""
    blocks = 30 * torch.randn(200, 128, 3, generator=torch.Generator().manual_seed(0)) - 900
    weights = estimate.LogWeights(3, blocks.device)
    for block in blocks:
        weights.add(block)
    flat = blocks.double().reshape(-1, 3).numpy()
    found = weights.estimate(len(flat))
    np.testing.assert_allclose(found.log_likelihood, logsumexp(flat, axis=0) - np.log(len(flat)), rtol=1e-13)
    expected = np.exp(2 * logsumexp(flat, axis=0) - logsumexp(2 * flat, axis=0))
    np.testing.assert_allclose(found.effective_sample_size, expected, rtol=1e-9)


def test_effective_sample_size_gives_a_bad_proposal_away() -> None:
    """A narrow posterior leaves prior sampling with about one useful draw."""
    model = LinearGaussian(4, 30, 0.001, N=5)
    assert prior_sampling(model.vae, model.y, 1000).effective_sample_size.max() < 3
    assert importance_sampling(model.vae, model.y, 1000).effective_sample_size.min() > 100


@by_estimator
def test_fewer_than_one_sample_is_refused(name: str) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"})
    with pytest.raises(ValueError, match="samples must be at least 1; got 0"):
        ESTIMATORS[name](vae, y, 0)


def test_memory_is_bounded_by_the_chunk() -> None:
    """The widest layer counts, not only the data; and one row is always possible."""
    wide = VAE({"hidden": [4096]}, {"hidden": [8]}, data_dim=2, latent_dim=2)
    assert estimate.rows_per_chunk(wide, 128) == 4
    assert estimate.rows_per_chunk(small_vae({"name": "gaussian"}), 128) == 2**21 // (128 * 7)
    assert estimate.rows_per_chunk(wide, 10**9) == 1


def test_the_bound_is_that_of_the_objective() -> None:
    """Its sampled part has the expectation of a thousand single draws (6e-5); its KL is exact; rows are independent."""
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=5)
    found = evidence_lower_bound(vae, y, 20_000)
    with torch.no_grad():
        terms = vae.terms(y, 1)
        draws = torch.stack([vae.terms(y, 1, seed=s).log_likelihood for s in range(1000)])
    torch.testing.assert_close(found.kl, terms.closed_form)
    torch.testing.assert_close(found.elbo, found.reconstruction - found.kl)
    for n in range(5):
        assert within_error(draws[:, n], found.reconstruction[n].item())
    some = torch.tensor([4, 1])
    torch.testing.assert_close(
        evidence_lower_bound(vae, y[some], 300, ids=some).elbo, evidence_lower_bound(vae, y, 300).elbo[some]
    )


def test_each_row_needs_an_id() -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=5)
    for estimator in (importance_sampling, evidence_lower_bound):
        with pytest.raises(ValueError, match=r"ids must have shape \(5,\), one for each row; got \(1,\)"):
            estimator(vae, y, 10, ids=torch.tensor([3]))
