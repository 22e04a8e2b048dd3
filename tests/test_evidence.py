"""Estimators of log p(y) against exact answers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from tests.anchors import BASIC, LinearGaussian, rows_for, small_vae, within_error
from vae import VAE
from vae.distributions.noise import per_example
from vae.distributions.vectors import UnitNormal
from vae.evidence import (
    Annealing,
    annealed_importance_sampling,
    density,
    estimate,
    evidence_lower_bound,
    exact,
    from_posterior,
    from_prior,
    importance_sampling,
    lower_bound,
    prior_sampling,
)
from vae.evidence.annealing import annealed
from vae.model import priors
from vae.model.layers import tanh_

FEW = Annealing(temperatures=5, leapfrog_steps=2, step_sizes=(0.5,))
ESTIMATORS: dict[str, Any] = {
    "prior": prior_sampling,
    "importance": importance_sampling,
    "annealed": partial(annealed_importance_sampling, annealing=FEW),
}
by_estimator = pytest.mark.parametrize("name", sorted(ESTIMATORS))


def repeated(model: LinearGaussian, times: int) -> torch.Tensor:
    """The model's first row, so often: rows with noise of their own are independent replicates."""
    return model.y[:1].expand(times, -1)


SIZES = [(1, 3, 0.5), (2, 5, 1.0), (4, 6, 2.0)]


@pytest.mark.parametrize(("K", "D", "variance"), SIZES)
@pytest.mark.parametrize("name", ["importance", "annealed"])
def test_unbiased_on_the_natural_scale(name: str, K: int, D: int, variance: float) -> None:
    """E[exp(estimate - exact)] = 1 for an unbiased estimate of p(y); its log is biased, so that is not tested.

    6,000 replicates. False-alarm rate 6e-5; detects a bias in p of four standard errors, at most 2 % here.
    """
    model = LinearGaussian(K, D, variance)
    ratios = _ratios(model, ESTIMATORS[name](model.vae, repeated(model, 6000), 8).log_likelihood)
    assert within_error(ratios, 1.0)
    assert 4 * ratios.std() / np.sqrt(len(ratios)) < 0.02


@pytest.mark.parametrize(("K", "D", "variance"), [SIZES[0], pytest.param(*SIZES[1], marks=pytest.mark.slow), SIZES[2]])
def test_prior_sampling_is_unbiased_on_the_natural_scale(K: int, D: int, variance: float) -> None:
    """As above; rows share their draws, so a replicate is a seed, and its ratio the mean over rows."""
    model = LinearGaussian(K, D, variance)
    results = [prior_sampling(model.vae, model.y, 1000, seed=seed).log_likelihood.numpy() for seed in range(1000)]
    ratios = np.exp(np.array(results) - model.log_likelihood).mean(axis=1)
    assert within_error(ratios, 1.0)
    assert 4 * ratios.std() / np.sqrt(len(ratios)) < 0.02


def _ratios(model: LinearGaussian, estimates: torch.Tensor) -> Any:
    return np.exp(estimates.numpy() - model.log_likelihood[0])


def test_the_check_sees_a_wrong_divisor() -> None:
    """Planted: S + 10 % in place of S, an error found in other libraries."""
    model = LinearGaussian(1, 3, 0.5)
    found = importance_sampling(model.vae, repeated(model, 6000), 8).log_likelihood
    assert not within_error(_ratios(model, found - np.log(1.1)), 1.0)


def test_the_check_sees_a_dropped_prior_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: weights p(y|z) / q(z|y), without p(z)."""
    model = LinearGaussian(1, 3, 0.5)

    class Dropped(UnitNormal):
        def log_prob(self, value: torch.Tensor) -> torch.Tensor:
            return torch.zeros(value.shape[:-1], dtype=value.dtype)

    monkeypatch.setattr(priors, "UnitNormal", Dropped)
    for name in ("importance", "annealed"):
        found = ESTIMATORS[name](model.vae, repeated(model, 6000), 8).log_likelihood
        assert not within_error(_ratios(model, found), 1.0)


def test_the_check_sees_a_mean_of_logs_over_chains() -> None:
    """Planted: chains combined by the mean of their logs, which is too low."""
    model = LinearGaussian(2, 5, 1.0)
    each = ESTIMATORS["annealed"](model.vae, repeated(model, 24_000), 1).log_likelihood
    assert within_error(_ratios(model, each), 1.0)
    assert not within_error(_ratios(model, each.reshape(-1, 8).mean(dim=1)), 1.0)


def test_means_weigh_examples_not_batches() -> None:
    """The mean over 7 rows in chunks of 3 is that over rows; the mean of chunk means, planted, is another number."""
    vae, y = small_vae({"name": "gaussian"}), 3 * rows_for({"name": "gaussian"}, N=7)
    exact_mean = estimate_of(vae, y).mean
    chunks = [estimate_of(vae, y[first : first + 3], ids=torch.arange(7)[first : first + 3]) for first in (0, 3, 6)]
    pooled = sum(chunk.mean * len(chunk.log_likelihood) for chunk in chunks) / 7
    assert pooled == pytest.approx(exact_mean, rel=1e-12)
    assert sum(chunk.mean for chunk in chunks) / 3 != pytest.approx(exact_mean, rel=1e-3)


def estimate_of(vae: VAE, y: torch.Tensor, **options: Any) -> Any:
    return importance_sampling(vae, y, 100, **options)


@pytest.mark.parametrize("S", [1000, 1015])
def test_the_monte_carlo_error_is_calibrated(S: int) -> None:
    """The spread of estimates over 2,000 replicates is the reported error within 15 % (nine standard errors of the spread).

    q is wider than the posterior, and a block of S / 10 draws has more than 25 times the relative variance of the weights.
    """
    model = LinearGaussian(2, 5, 1.0)
    found = importance_sampling(model.vae, repeated(model, 2000), S)
    relative_variance = (S / found.effective_sample_size - 1).mean()
    assert 25 * relative_variance < S / 10
    assert found.log_likelihood.std().item() == pytest.approx(found.monte_carlo_error * np.sqrt(2000), rel=0.15)


@pytest.mark.slow
def test_the_monte_carlo_error_of_prior_sampling_is_calibrated() -> None:
    """As above over 1,000 seeds, for the mean over rows with shared draws; to add the rows' own variances would be wrong."""
    model = LinearGaussian(1, 3, 2.0)
    y = torch.cat([model.y, repeated(model, 6)])
    results = [prior_sampling(model.vae, y, 2000, seed=seed) for seed in range(1000)]
    spread = np.std([result.mean for result in results])
    assert spread == pytest.approx(_root_mean_square(results), rel=0.15)
    assert spread > 1.15 * _root_mean_square([replace(result, shared_draws=False) for result in results])


def _root_mean_square(results: list[Any]) -> float:
    return float(np.sqrt(np.mean([result.monte_carlo_error**2 for result in results])))


def test_the_monte_carlo_error_of_annealing_is_calibrated() -> None:
    """As above, from 20 chains: 2,000 replicates, within 15 %."""
    model = LinearGaussian(2, 5, 1.0)
    found = ESTIMATORS["annealed"](model.vae, repeated(model, 2000), 20)
    assert found.log_likelihood.std().item() == pytest.approx(found.monte_carlo_error * np.sqrt(2000), rel=0.15)


def test_bounds_hold_in_expectation() -> None:
    """ELBO <= IS_10 <= IS_100 <= log p(y), paired over 2,000 replicates; each false alarm has a rate of 3e-5."""
    model = LinearGaussian(2, 5, 1.0, widen=1.8)
    y = repeated(model, 2000)
    ladder = importance_sampling(model.vae, y, 100, ladder=[1, 10]).ladder
    elbo = evidence_lower_bound(model.vae, y, 10).elbo
    chain = [elbo, ladder[10], ladder[100], torch.full_like(elbo, model.log_likelihood[0])]
    for lower, upper in pairwise(chain):
        rise = (upper - lower).numpy()
        assert rise.mean() > -4 * rise.std() / np.sqrt(2000)
        assert rise.mean() > 0


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
        totals = [estimator(vae, y, 20, seed=s).log_likelihood.exp().sum().item() for s in range(50)]
        # prior sampling shares its draws between rows, so each total is exactly 1
        assert np.allclose(totals, 1, atol=1e-9) or within_error(np.array(totals), 1.0)


@cache
def _truth(K: int, likelihood: str) -> Any:
    options = next(options for options in BASIC if options["name"] == likelihood)
    return exact(small_vae(options, K=K), rows_for(options, N=3)).log_likelihood.numpy()


@by_estimator
@pytest.mark.parametrize("K", [1, 2])
def test_small_latent_dimensions_against_quadrature(name: str, K: int) -> None:
    """Nonlinear decoders: E[exp(estimate - exact)] = 1 over replicates, for each row. False-alarm rate 6e-5 a row."""
    for options in BASIC:
        vae, y = small_vae(options, K=K), rows_for(options, N=3)
        truth = _truth(K, options["name"])
        if name == "prior":
            found = np.array([prior_sampling(vae, y, 1000, seed=s).log_likelihood.numpy() for s in range(200)])
        else:
            many = ESTIMATORS[name](vae, y.repeat(300, 1), 200 if name == "importance" else 20)
            found = many.log_likelihood.reshape(300, 3).numpy()
        for n in range(3):
            assert within_error(np.exp(found[:, n] - truth[n]), 1.0)


@by_estimator
@pytest.mark.parametrize("S", [1, 127, 128, 129, 300])
def test_chunks_do_not_matter(name: str, S: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of rows nor of the draws that are multiplied together; the noise stays."""
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=7)
    whole, elbo = ESTIMATORS[name](vae, y, S), evidence_lower_bound(vae, y, S).elbo
    for module in (from_posterior, annealed, lower_bound):
        monkeypatch.setattr(module, "rows_per_chunk", lambda *_: 2)
    monkeypatch.setattr(from_prior, "ROWS", 2)
    parts = ESTIMATORS[name](vae, y, S)
    torch.testing.assert_close(evidence_lower_bound(vae, y, S).elbo, elbo, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.log_likelihood, whole.log_likelihood, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.effective_sample_size, whole.effective_sample_size)
    torch.testing.assert_close(parts.leave_one_out, whole.leave_one_out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.pareto_k, whole.pareto_k, equal_nan=True)
    assert whole.samples == S


@by_estimator
def test_rows_do_not_affect_each_other(name: str) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=6)
    order = torch.tensor([3, 0, 5])
    options: dict[str, Any] = {} if name == "prior" else {"ids": order}
    some = ESTIMATORS[name](vae, y[order], 200, **options).log_likelihood
    torch.testing.assert_close(some, ESTIMATORS[name](vae, y, 200).log_likelihood[order], rtol=1e-12, atol=1e-12)
    one = ESTIMATORS[name](vae, y[:1], 200)
    torch.testing.assert_close(one.log_likelihood, ESTIMATORS[name](vae, y, 200).log_likelihood[:1], rtol=1e-12, atol=1e-12)
    assert np.isnan(one.standard_error)


def test_every_sample_counts_once() -> None:
    """Against a direct computation from the same noise, with S not a multiple of the block."""
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=3)
    S, ids = 400, torch.arange(3)
    with torch.no_grad():
        q = vae.inference(y)
        noise = torch.cat([per_example(0, "importance", ids, block, (256, 2), like=y) for block in range(2)])[:S]
        z = q.transform(noise)
        log_weights = (vae.generative(z).log_prob(y) + vae.prior().log_prob(z) - q.log_prob(z)).numpy()
    found = importance_sampling(vae, y, S)
    np.testing.assert_allclose(found.log_likelihood, logsumexp(log_weights, axis=0) - np.log(S), rtol=1e-12)
    weights = np.exp(log_weights)
    np.testing.assert_allclose(found.effective_sample_size, weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0), rtol=1e-9)


def test_effective_sample_size_gives_a_bad_proposal_away() -> None:
    """A narrow posterior leaves prior sampling with about one useful draw."""
    model = LinearGaussian(4, 30, 0.001, N=5)
    with pytest.warns(UserWarning, match=r"about 1\.\d draw of 1,000 that explains an example .* far too low"):
        found = prior_sampling(model.vae, model.y, 1000)
    assert found.effective_sample_size.max() < 3
    assert importance_sampling(model.vae, model.y, 1000).effective_sample_size.min() > 100


@by_estimator
def test_fewer_than_one_sample_is_refused(name: str) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"})
    with pytest.raises(ValueError, match=r"(samples|chains) must be at least 1; got 0"):
        ESTIMATORS[name](vae, y, 0)


@by_estimator
def test_rows_that_are_not_finite_are_refused(name: str) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"})
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match="y must be finite under the Gaussian likelihood; got nan in row 3, column 1"):
        ESTIMATORS[name](vae, y, 10)


def test_memory_is_bounded_by_the_chunk() -> None:
    """The widest layer counts, not only the data; and one row is always possible."""
    wide = VAE({"hidden": [4096]}, {"hidden": [8]}, data_dim=2, latent_dim=2)
    assert estimate.rows_per_chunk(wide, 128) == 4
    assert estimate.rows_per_chunk(small_vae({"name": "gaussian"}), 128) == 2**21 // (128 * 7)
    assert estimate.rows_per_chunk(wide, 10**9) == 1


@pytest.mark.parametrize("options", BASIC, ids=lambda options: options["name"])
def test_fast_densities_are_the_direct_ones(options: dict[str, Any]) -> None:
    """Paired and all-pairs forms against the distribution's own log_prob, float64."""
    vae, y = small_vae(options, D=32), rows_for(options, N=5, D=32)
    z = torch.randn(11, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(density.paired(vae.generative, y)(z), vae.generative(z).log_prob(y))
        shared = z[:, 0]
        pairs = density.all_pairs(vae.generative, y, shared)
        assert isinstance(pairs, density.Product)
        found = pairs.at(shared)(slice(1, 4)) + pairs.offset[1:4]
        torch.testing.assert_close(found, vae.generative(shared[:, None]).log_prob(y[1:4]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_softplus_from_products(dtype: torch.dtype) -> None:
    """Logits from -300 to 300, where exponentials overflow and products of them would: to rounding of the sum."""
    for D in (16, 784, 785):
        f = 30 * torch.randn(200, D, dtype=dtype, generator=torch.Generator().manual_seed(0))
        expected = torch.logaddexp(f.double(), torch.zeros(())).sum(dim=-1)
        tolerance = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(density.sum_softplus_(f.clone()).double(), expected, rtol=tolerance, atol=tolerance)
        x = f[:, :200] / 30
        torch.testing.assert_close(tanh_(x.clone()), torch.tanh(x), rtol=0, atol=tolerance)


def test_products_that_cancel_fall_back_to_float64() -> None:
    """Small sigma in float32: the product form is off by nats, is seen to be, and is taken in float64."""
    vae = VAE({"hidden": [8]}, {"hidden": [8]}, data_dim=20, latent_dim=2, likelihood={"name": "gaussian", "variance": 1e-8})
    z, y = torch.randn(100, 2), torch.randn(50, 20) * 3
    with torch.no_grad():
        pairs, careless = density.all_pairs(vae.generative, y, z), density.GaussianProduct(vae.generative, y, z)
        direct = vae.generative(z[:, None]).log_prob(y)
        assert (careless.at(z)(slice(None)).double() + careless.offset - direct).abs().max() > 1
        assert isinstance(pairs, density.Product)
        assert pairs.dtype == torch.float64
        exact_f = vae.generative.likelihood(vae.generative.network(z)[:, None].double()).log_prob(y.double())
        torch.testing.assert_close(pairs.at(z)(slice(None)) + pairs.offset, exact_f, rtol=1e-10, atol=1e-3)


def test_unlisted_likelihoods_take_the_generic_form(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=5)
    expected = prior_sampling(vae, y, 3000)
    monkeypatch.setattr(density, "PRODUCTS", {})
    found = prior_sampling(vae, y, 3000)
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.effective_sample_size, expected.effective_sample_size)


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
