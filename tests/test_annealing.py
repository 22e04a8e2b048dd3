"""Annealed importance sampling and two-sided bounds against exact answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tests.anchors import LinearGaussian, rows_for, small_vae, within_error
from tests.test_mixed import linear, observed_log_density
from vae import VAE
from vae.evidence import (
    Annealing,
    annealed_importance_sampling,
    bidirectional_bounds,
    importance_sampling,
    reverse_annealing,
    tune_step_sizes,
)
from vae.evidence.annealing import tuning
from vae.evidence.annealing.hmc import Transition
from vae.evidence.annealing.path import Path

STEPS = Annealing(temperatures=6, leapfrog_steps=2, step_sizes=(0.6,))
SIZES = [(1, 3, 0.5), (2, 5, 1.0), (4, 6, 2.0)]
starts = pytest.mark.parametrize(
    "start",
    [{"start": "posterior"}, {"start": "prior"}, {"start": "prior", "widen": 2.0}],
    ids=["posterior", "prior", "wider prior"],
)


def simulated(model: LinearGaussian, N: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and the latents that made them, float64."""
    generated = model.vae.generate(N, seed=seed, full=True)
    return generated.y, generated.z


@pytest.mark.parametrize(("K", "D", "variance"), SIZES)
@starts
def test_forward_is_unbiased_on_the_natural_scale(start: dict[str, Any], K: int, D: int, variance: float) -> None:
    """E[exp(estimate - exact)] = 1, over 6,000 replicates of a row. False-alarm rate 6e-5."""
    model = LinearGaussian(K, D, variance)
    annealing = replace(STEPS, **start)
    found = annealed_importance_sampling(model.vae, model.y[:1].expand(6000, -1), 4, annealing=annealing).log_likelihood
    ratios = np.exp(found.numpy() - model.log_likelihood[0])
    assert within_error(ratios, 1.0)
    assert 4 * ratios.std() / math.sqrt(6000) < 0.1


@pytest.mark.parametrize(("K", "D", "variance"), SIZES)
@starts
def test_reverse_is_unbiased_on_the_natural_scale(start: dict[str, Any], K: int, D: int, variance: float) -> None:
    """E[exp(exact - estimate)] = 1 over 6,000 simulated rows, and so E[estimate] >= exact. False-alarm rates 6e-5, 3e-5."""
    model = LinearGaussian(K, D, variance)
    y, z = simulated(model, 6000)
    exact = model.log_density(y)
    found = reverse_annealing(model.vae, y, z, 4, annealing=replace(STEPS, **start)).log_likelihood.numpy()
    assert within_error(np.exp(exact - found), 1.0)
    above = found - exact
    assert above.mean() > -4 * above.std() / math.sqrt(6000)


def test_reverse_from_other_latents_is_seen() -> None:
    """Planted: latents that are not draws from p(z|y), here q's means, which lie where the posterior is highest."""
    model = LinearGaussian(2, 5, 1.0)
    y, _ = simulated(model, 6000)
    found = reverse_annealing(model.vae, y, model.vae.infer(y)[0], 4, annealing=STEPS).log_likelihood.numpy()
    assert not within_error(np.exp(model.log_density(y) - found), 1.0)


def test_two_temperatures_are_importance_sampling() -> None:
    """With S chains and no transition between them: the same draws, the same estimates."""
    vae, y = small_vae({"name": "bernoulli"}), rows_for({"name": "bernoulli"}, N=5)
    for S in (1, 16, 150):
        found = annealed_importance_sampling(vae, y, S, annealing=Annealing(temperatures=2), ids=torch.arange(5) + 3)
        expected = importance_sampling(vae, y, S, ids=torch.arange(5) + 3)
        torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.effective_sample_size, expected.effective_sample_size)
        assert found.acceptance.shape == (0, 5)


def test_more_temperatures_come_closer() -> None:
    """A narrow posterior and a bad q: the exact value is approached from below as temperatures grow, to 0.1 nats at 300."""
    model = LinearGaussian(3, 8, 0.05, widen=6.0, N=100)
    pilot, errors = model.y, list[float]()
    for temperatures in (4, 300):
        annealing = tune_step_sizes(model.vae, pilot, annealing=Annealing(temperatures))
        found = annealed_importance_sampling(model.vae, model.y, 8, annealing=annealing).log_likelihood.numpy()
        errors.append((found - model.log_likelihood).mean())
    assert errors[0] < errors[1] < 0.02
    assert abs(errors[1]) < 0.1


def test_chains_are_combined_by_log_mean_exp() -> None:
    """One run of 8 chains is the log-mean-exp of its chains, which the kept estimates without each chain reveal."""
    model = LinearGaussian(1, 3, 0.5)
    found = annealed_importance_sampling(model.vae, model.y, 12, annealing=STEPS)
    p, without = found.log_likelihood.exp(), found.leave_one_out.exp()
    chains = 12 * p - 11 * without
    torch.testing.assert_close(chains.mean(dim=0), p)
    assert (chains > 0).all()


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_a_transition_leaves_its_density_invariant(beta: float) -> None:
    """From exact draws of the annealed density, a step away from them in law would show: KS tests, false-alarm rate 1e-4."""
    model = LinearGaussian(1, 3, 0.5, widen=1.5)
    path = Path(model.vae, model.y[:1], "posterior")
    mean, stddev = _annealed_moments(model, path, beta)
    noise = torch.randn(20_000, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = torch.randn(20_000, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        point, accepted = Transition(path, beta, 1.2, 3)(path.at(mean + stddev * noise), steps)
    assert 0.5 < accepted.double().mean() < 0.999
    z = ((point.z - mean) / stddev).flatten().numpy()
    assert kstest(z, "norm").pvalue > 1e-4
    assert np.corrcoef(z, noise.flatten())[0, 1] < 0.9  # it moved


def _annealed_moments(model: LinearGaussian, path: Path, beta: float) -> tuple[float, float]:
    """Of q^(1 - beta) p(y, z)^beta, a product of normals."""
    (w, b), y = (model.W[:, 0], model.b), model.y[0].numpy()
    q_precision = 1 / path.q.variance.item()
    precision = (1 - beta) * q_precision + beta * (1 + w @ w / model.variance)
    first = (1 - beta) * q_precision * path.q.mean.item() + beta * w @ (y - b) / model.variance
    return float(first / precision), float(precision**-0.5)


ADAPTATION_RATE = 0.5


def _chains(model: LinearGaussian, T: int, C: int, *, adapt: bool) -> np.ndarray[Any, Any]:
    """Weights over the exact p(y) of C chains from the prior; with ``adapt`` each chain's step follows its own acceptances."""
    annealing = Annealing(T, start="prior")
    path = Path(model.vae, model.y[:1], "prior")
    noise = torch.Generator().manual_seed(5)
    step = torch.full((C, 1, 1), 1.0, dtype=torch.float64)
    with torch.no_grad():
        point = path.at(torch.randn(C, 1, 2, dtype=torch.float64, generator=noise))
        log_weights = torch.zeros(C, 1, dtype=torch.float64)
        for before, beta in zip(annealing.betas, annealing.betas[1:], strict=False):
            log_weights += (beta - before) * point.log_ratio
            draws = torch.randn(C, 1, 3, dtype=torch.float64, generator=noise)
            point, accepted = Transition(path, beta, step, 1)(point, draws)
            if adapt:
                step = step * (ADAPTATION_RATE * (accepted[..., None].double() - 0.65)).exp()
    return np.exp(log_weights[:, 0].numpy() - model.log_likelihood[0])


def test_adapting_step_sizes_inside_a_chain_is_seen() -> None:
    """Planted: each chain adapts its step by its own acceptances (rate 0.5) while it is counted. 160,000 chains, T = 50.

    A rejection says where the chain is, so the adapted kernel no longer leaves its density invariant. The frozen step passes.
    """
    model = LinearGaussian(2, 3, 0.2)
    assert within_error(_chains(model, 50, 160_000, adapt=False), 1.0)
    assert not within_error(_chains(model, 50, 160_000, adapt=True), 1.0)


def test_step_sizes_do_not_depend_on_the_counted_noise() -> None:
    """Tuning is a function of pilot rows and seed; a run uses what it was given, whatever the chains do."""
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=6)
    tuned = tune_step_sizes(vae, y, annealing=Annealing(30), seed=1)
    assert tuned == tune_step_sizes(vae, y, annealing=Annealing(30), seed=1)
    assert tuned != tune_step_sizes(vae, y, annealing=Annealing(30), seed=2)
    found = [annealed_importance_sampling(vae, y, 4, annealing=tuned, seed=s).log_likelihood for s in (1, 2)]
    assert not torch.equal(*found)


@pytest.mark.parametrize("temperatures", [3, 12, 60])
def test_tuned_steps_accept_about_as_often_as_wanted(temperatures: int) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=40)
    annealing = tune_step_sizes(vae, y, annealing=Annealing(temperatures, leapfrog_steps=2))
    aim = tuning._target(vae.card.latent_size, 2)
    assert 0.8 < aim < 0.95
    assert annealing.step_sizes is not None
    assert len(annealing.step_sizes) == annealing.ranges == min(10, temperatures - 2)
    found = annealed_importance_sampling(vae, y, 8, annealing=annealing)
    assert found.acceptance.shape == (annealing.ranges, 40)
    away = 0.1 if temperatures == 3 else 0.04  # a lone step size is as far off as its jitter
    assert found.acceptance.mean().item() == pytest.approx(aim, abs=away)


def test_a_diverging_proposal_is_rejected() -> None:
    """Steps so long that the density overflows to NaN: chains stay, and the estimate is that of importance sampling."""
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"}, N=5)
    found = annealed_importance_sampling(vae, y, 8, annealing=Annealing(6, step_sizes=(1e200,)))
    assert (found.acceptance == 0).all()
    torch.testing.assert_close(found.log_likelihood, importance_sampling(vae, y, 8).log_likelihood)


def test_the_schedule_rises_from_0_to_1() -> None:
    for T in (2, 3, 200):
        betas = Annealing(T).betas
        assert (betas[0], betas[-1], len(betas)) == (0, 1, T)
        assert all(np.diff(betas) > 0)
    steps = {t: Annealing(50, step_sizes=(1.0,) * 10).step_size(t, seed=0) for t in range(1, 49)}
    assert 0.7 <= min(steps.values()) < 0.75
    assert 1.25 < max(steps.values()) <= 1.3


def test_bounds_hold_the_exact_value_between_them() -> None:
    """Linear-Gaussian: lower <= exact <= upper in expectation, and the gap shrinks with the temperatures. Rates 3e-5."""
    model = LinearGaussian(3, 8, 0.1, widen=3.0)
    gaps = []
    for temperatures in (5, 100):
        found = bidirectional_bounds(model.vae, 300, 8, annealing=Annealing(temperatures))
        exact = model.log_density(model.vae.generate(300, full=True).y)
        for above in (exact - found.lower.log_likelihood.numpy(), found.upper.log_likelihood.numpy() - exact):
            assert above.mean() > -4 * above.std() / math.sqrt(300)
        gaps.append(found.gap)
    assert gaps[1].mean + 2 * gaps[1].standard_error < gaps[0].mean / 5


def test_bounds_of_rows_with_gaps_hold_the_exact_value_of_what_is_observed() -> None:
    """Rows get the gaps of the rows given, as often as these have them, and the bounds are of what is left. Rates 3e-5.

    The reverse chains start from the latent that made the whole row, which is a draw given its observed part as well.
    """
    anchor = LinearGaussian(2, 4, 0.3, N=40)
    vae, y = linear(anchor)
    found = bidirectional_bounds(vae, 400, 8, annealing=Annealing(60), missing=y.isnan())
    patterns = {tuple(row) for row in y.isnan().tolist()}
    assert {tuple(row) for row in found.y.isnan().tolist()} <= patterns
    share = y.isnan().double().mean(dim=0)
    assert ((found.y.isnan().double().mean(dim=0) - share).abs() < 4 * (share * (1 - share) / 400).sqrt()).all()
    exact = observed_log_density(anchor, found.y)
    for above in (exact - found.lower.log_likelihood.numpy(), found.upper.log_likelihood.numpy() - exact):
        assert above.mean() > -4 * above.std() / math.sqrt(400)
    assert found.gap.mean < 0.1
    whole = bidirectional_bounds(vae, 400, 8, annealing=Annealing(60)).y
    assert torch.equal(found.y.nan_to_num(9.0), whole.masked_fill(found.y.isnan(), 9.0))


def test_gaps_that_do_not_fit_are_refused() -> None:
    vae, y = linear(LinearGaussian(2, 4, 0.3))
    for missing in (y.isnan()[:, :3], y.isnan()[:0], y.nan_to_num(0.0)):
        with pytest.raises(ValueError, match=r"missing must be booleans of shape \(M, 4\), the gaps of at least one row; got"):
            bidirectional_bounds(vae, 3, 2, missing=missing)
    with pytest.raises(ValueError, match="got nan"):
        bidirectional_bounds(small_vae({"name": "gaussian"}), 3, 2, missing=torch.ones(1, 4, dtype=torch.bool))


def test_pilot_rows_are_not_the_simulated_rows() -> None:
    """With one seed for both, step sizes would depend on the latents that the reverse chains start from."""
    vae = small_vae({"name": "gaussian"})
    own = tuning.pilot_seed(3)
    assert own == tuning.pilot_seed(3) != 3
    assert not torch.equal(vae.generate(32, seed=3), vae.generate(32, seed=own))


def test_sampled_gaps_are_not_clipped() -> None:
    """Where annealing is all but exact, gaps scatter around zero."""
    model = LinearGaussian(1, 3, 0.5)
    found = bidirectional_bounds(model.vae, 100, 8, annealing=Annealing(30))
    assert (found.upper.log_likelihood < found.lower.log_likelihood).any()


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"temperatures": 1}, "temperatures must be at least 2, the start and the end; got 1"),
    ({"leapfrog_steps": 0}, "leapfrog_steps must be at least 1; got 0"),
    ({"start": "q"}, "start must be one of posterior, prior; got 'q'"),
    ({"widen": 0.0}, r"widen must be greater than 0; got 0\.0"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Annealing(**settings)


def test_bad_numbers_of_rows_and_chains() -> None:
    vae = VAE({"hidden": [4]}, {"hidden": [4]}, data_dim=2, latent_dim=2)
    with pytest.raises(ValueError, match="simulated rows must be at least 1; got 0"):
        bidirectional_bounds(vae, 0)
    with pytest.raises(ValueError, match="chains must be at least 1; got 0"):
        reverse_annealing(vae, torch.zeros(2, 2), torch.zeros(2, 2), 0)
    with pytest.raises(ValueError, match=r"z must have shape \(3, 2\), a latent for each row; got \(2, 2\)"):
        reverse_annealing(vae, torch.zeros(3, 2), torch.zeros(2, 2))
