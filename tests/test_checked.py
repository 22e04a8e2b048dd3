"""Annealing of which every row is checked: no bias by what repeats a row, and rows that are hard are named or settled."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from tests.anchors import LinearGaussian, rows_for, set_affine, small_vae, within_error
from vae import VAE
from vae.evidence import (
    Annealing,
    Bounds,
    Checked,
    Estimate,
    annealed_importance_sampling,
    assess,
    checked_annealing,
    one_by_one,
    reverse_annealing,
    settle,
    settled_bounds,
    simulated_rows,
)
from vae.evidence.verdict.judgement import BETWEEN_JUDGES, apart
from vae.model.encoding import Input

FEW = Annealing(temperatures=4, leapfrog_steps=1, step_sizes=(0.5,))
N = 3000


def repeated(extra: float) -> tuple[Checked, float, list[str]]:
    """One row 3,000 times, with so few temperatures that log weights spread by more than a nat, and its exact log p(y)."""
    model = LinearGaussian(2, 6, 0.05, widen=2.0, N=2)
    y, asked = model.y[:1].expand(N, -1), list[str]()

    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        asked.append(stream)
        return annealed_importance_sampling(model.vae, y[rows], 10, annealing=annealing, stream=stream, ids=rows)

    return settle(one_by_one(run), N, FEW, replace(FEW, start="prior"), extra=extra), model.log_likelihood[0], asked


def share_of_exact(estimates: Tensor, exact: float) -> Any:
    """exp(estimate - exact), whose expectation is 1."""
    return np.exp(estimates.numpy() - exact)


def test_repeating_disputed_rows_does_not_bias() -> None:
    """E[exp(estimate - exact)] = 1, false-alarm rate 6e-5 each: without repeats, and where a part of the rows is repeated.

    Planted: rows kept by the errors of the reported run itself, which go with its weights.
    """
    first, exact, _ = repeated(0.0)
    checked, _, _ = repeated(1.0)
    assert within_error(share_of_exact(first.estimate.log_likelihood, exact), 1.0)
    again = checked.level.numpy() > 0
    assert 0.05 < again.mean() < 0.95
    assert within_error(share_of_exact(checked.estimate.log_likelihood, exact), 1.0)
    variance = first.estimate.monte_carlo_variance
    by_own = variance < variance.median()
    assert not within_error(share_of_exact(first.estimate.log_likelihood[by_own], exact), 1.0)


def test_the_budget_goes_to_the_rows_whose_judges_differ_most() -> None:
    checked, _, asked = repeated(0.1)
    first, _, _ = repeated(0.0)
    again = (checked.level > 0).numpy()
    assert again.mean() == pytest.approx(0.1 / 4, abs=1e-3)
    assert checked.decoder_runs <= 1.1 * first.decoder_runs
    difference = (first.same_start.log_likelihood - first.other_start.log_likelihood).abs().numpy()
    assert difference[again].min() >= difference[~again].max()
    assert len(set(asked)) == len(asked)  # streams of their own


def test_starts_have_noise_of_their_own_where_q_is_the_prior() -> None:
    """Otherwise both starts would be one run, and agree whatever they say."""
    checked = checked_annealing(collapsed(LinearGaussian(2, 4, 1.0)), torch.zeros(20, 4), 16, annealing=Annealing(8, 1))
    runs = (checked.estimate.log_likelihood, checked.same_start.log_likelihood, checked.other_start.log_likelihood)
    assert all((a != b).all() for a, b in zip(runs, (*runs[1:], runs[0]), strict=True))


def collapsed(model: LinearGaussian) -> VAE:
    """With q equal to the prior."""
    layer = model.vae.inference.network[0]
    set_affine(layer, np.zeros(layer.weight.shape), np.zeros(layer.bias.shape))
    return model.vae


def test_without_an_error_no_row_is_settled_and_none_is_repeated() -> None:
    model = LinearGaussian(2, 4, 1.0)
    checked = checked_annealing(model.vae, model.y, 9, annealing=Annealing(30))
    assert not checked.settled.any()
    assert not checked.level.any()


def test_sound_rows_are_settled_and_an_outlier_is_not_lost() -> None:
    """A row 60 standard deviations from the model: its posterior is where neither start is. Settled and right, or named."""
    model = LinearGaussian(2, 4, 0.1, widen=1.0, N=20)
    y = model.y.clone()
    y[7] = 60.0
    few: dict[str, Any] = {
        "annealing": Annealing(60),
        "extra": 1.0,
        "bounds_examples": 10,
        "prior_samples": 1000,
        "samples": 100,
        "use_exact": False,
    }
    found = assess(model.vae.float(), y.float(), pilot=model.y.float(), **few)
    errors = found.log_likelihood.numpy() - model.log_density(y)
    assert found.checked is not None
    settled = found.checked.settled.numpy()
    assert settled[np.arange(20) != 7].mean() > 0.9
    assert np.abs(errors[settled]).max() < BETWEEN_JUDGES
    assert found.verdict.trusted == bool(settled.all())


def test_an_island_in_the_tails_of_the_prior_is_found() -> None:
    """A flat decoder but for z_1 > 6, and q equal to the prior: chains see no slope, but a wide prior's draws fall there.

    Exact: log(P(z_1 > 6) p(y|inside) + P(z_1 < 6) p(y|outside)), the step being as sharp as float32 makes it.
    """
    vae = island()
    y = torch.full((5, 4), 3.0)
    found = assess(vae, y, annealing=Annealing(10), bounds_examples=5, samples=100)
    inside, outside = -2 * np.log(2 * np.pi), -2 * np.log(2 * np.pi) - 4 * 20**2 / 2
    exact = logsumexp([inside + np.log(9.866e-10), outside])
    assert found.mean.mean < exact - 100
    assert not found.verdict.trusted
    assert any("sampling from a wide prior found" in reason for reason in found.verdict.reasons)


def island() -> VAE:
    """Means 3 where z_1 > 6, and -17 elsewhere; three latents."""
    architecture: dict[str, Any] = {"hidden": (1,), "activation": "tanh"}
    vae = VAE(architecture, architecture, data_dim=4, latent_dim=3, likelihood={"name": "gaussian", "variance": 1.0})
    first, last = vae.generative.network[0], vae.generative.network[2]
    set_affine(first, np.array([[1e4, 0, 0]]), np.array([-6e4]))
    set_affine(last, np.full((4, 1), 10.0), np.full(4, -7.0))
    for layer in (vae.inference.network[0], vae.inference.network[2]):
        set_affine(layer, np.zeros(layer.weight.shape), np.zeros(layer.bias.shape))
    return vae


def test_what_prior_sampling_finds_and_annealing_does_not_is_seen() -> None:
    """A tenth of the prior is a narrow component in twelve dimensions, which no chain enters: its rows are too low by nats.

    Exact: y = z + noise of variance 1, so that each component makes a normal distribution of y.
    """
    K, stddevs, shares = 12, np.array([1.0, 0.05]), np.array([0.9, 0.1])
    prior = {"name": "gaussian_mixture", "components": 2}
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=K, latent_dim=K, likelihood="gaussian", prior=prior)
    set_affine(vae.generative.network[0], np.eye(K), np.zeros(K))
    half = np.eye(K) / 2  # q is the posterior under the wide component
    set_affine(
        vae.inference.network[0], np.vstack([half, 0 * half]), np.concatenate([np.zeros(K), np.full(K, -np.log(2) / 2)])
    )
    with torch.no_grad():
        vae.prior.mean.zero_()
        vae.prior.raw_stddev.copy_(torch.tensor(np.log(stddevs))[:, None].expand(2, K))
        vae.prior.logits.copy_(torch.tensor(np.log(shares)))
    y = torch.randn(30, K, generator=torch.Generator().manual_seed(0))
    parts = [np.log(share) + norm.logpdf(y, 0, np.hypot(s, 1)).sum(axis=1) for s, share in zip(stddevs, shares, strict=True)]
    exact = logsumexp(parts, axis=0)
    found = assess(vae, y, annealing=Annealing(30), bounds_examples=10, samples=100, prior_samples=20_000, use_exact=False)
    assert (exact - found.log_likelihood.numpy()).mean() > 0.4
    assert any("prior sampling is higher than annealing" in reason for reason in found.verdict.reasons)


def test_starts_change_places_by_the_judges_noise_alone() -> None:
    """q lies beside the posterior: some of 3,000 repeats of a row go on from the prior, without a bias.

    E[exp(estimate - exact)] = 1, false-alarm rate 6e-5.
    """
    model = LinearGaussian(2, 6, 0.3, widen=1.0, N=2)
    with torch.no_grad():
        model.vae.inference.network[0].bias[:2] += 0.5
    y = model.y[:1].expand(N, -1)

    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        return annealed_importance_sampling(model.vae, y[rows], 10, annealing=annealing, stream=stream, ids=rows)

    checked = settle(one_by_one(run), N, FEW, replace(FEW, start="prior"), extra=3.0)
    assert 0.05 < checked.at_prior.double().mean() < 0.95
    assert within_error(share_of_exact(checked.estimate.log_likelihood, model.log_likelihood[0]), 1.0)
    other = checked.estimate.log_likelihood - checked.other_start.log_likelihood
    torch.testing.assert_close(checked.start_difference, torch.where(checked.at_prior, -other, other))


def estimates(values: list[float], error: float, effective: float = 16.0) -> Estimate:
    """Of rows, each with that Monte Carlo error."""
    loo = torch.linspace(-1, 1, 10, dtype=torch.float64)
    spread = loo * error / (loo.square().sum() * 0.9).sqrt()
    values_ = torch.tensor(values, dtype=torch.float64)
    full = torch.full_like(values_, effective)
    return Estimate(values_, full, 16, values_ + spread[:, None], False, torch.full_like(values_, torch.nan))


@pytest.mark.parametrize(
    ("from_prior", "effective", "settled"),
    [(-32.0, 1000.0, True), (-32.0, 99.0, False), (0.1, 1000.0, True), (0.1, 99.0, True), (32.0, 1000.0, False)],
)
def test_sampling_judges_where_it_is_well_founded_and_not_lower(from_prior: float, effective: float, settled: bool) -> None:
    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        value = 0.0 if annealing.start == "posterior" else from_prior
        return estimates([value] * len(rows), 0.01)

    sampled = estimates([0.05, 0.05], 0.01, effective)
    checked = settle(one_by_one(run), 2, FEW, replace(FEW, start="prior"), extra=200.0, sampled=sampled)
    assert (checked.settled == settled).all()
    assert (checked.level == (0 if settled else 2)).all()


@pytest.mark.parametrize(
    ("from_q", "at", "from_wide", "settled"),
    [
        (-2.0, 0.0, 0.1, True),  # q covers a part
        (-2.0, 0.0, -2.0, False),  # runs from the prior and from a wider one differ
        (2.0, 0.0, 0.0, False),  # q found more
        (-0.7, 1.5, 0.0, True),  # q is at one end of where the others are
        (-0.7, 9.0, 0.0, False),  # q is where no other run is, whose mass adds to theirs
        (-4.0, 9.0, 0.0, True),  # likewise, but with a mass that does not count
    ],
)
def test_a_wider_prior_judges_where_q_covers_a_part(from_q: float, at: float, from_wide: float, settled: bool) -> None:
    """Of rows that are reported from the prior, as q's chains are noisier there."""
    asked = []

    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        asked.append(stream)
        of_q = annealing.start == "posterior"
        value = from_q if of_q else from_wide if annealing.widen > 1 else 0.0
        ends = torch.ones(2, 3, len(rows), dtype=torch.float64)
        ends[0] = at if of_q else -1.6 * (stream.startswith("check from the prior, 4"))
        return replace(estimates([value] * len(rows), 0.1 if of_q else 0.01), ends=ends)

    checked = settle(one_by_one(run), 3, FEW, replace(FEW, start="prior"), extra=200.0)
    assert checked.at_prior.all() == (from_q < 0)
    assert (checked.settled == settled).all()
    if settled:
        assert (checked.level == 1).all()
        assert (checked.other_start.log_likelihood == from_wide).all()
        runs = 3 * estimates([0.0], 0.1).samples * (14 + 4 * (14 + 4))  # of T = 4, 3.5 T, and 4 times as many and T more
        assert checked.decoder_runs == runs
        assert len(set(asked)) == len(asked)


def test_rows_repeat_where_judges_differ_for_sure_although_within_a_nat() -> None:
    """By half a nat with errors of 0.01 they do, with errors of 0.12 they do not."""

    for error, level in ((0.01, 1), (0.12, 0)):

        def run(stream: str, rows: Tensor, annealing: Annealing, error: float = error) -> Estimate:
            return estimates([-0.5 if stream == "check from q" else 0.0], error)

        assert settle(one_by_one(run), 1, FEW, replace(FEW, start="prior"), extra=6.0).level.tolist() == [level]


@pytest.mark.parametrize(("tolerance", "times"), [(math.inf, 1), (0.0, 4)])
def test_bounds_of_rows_that_are_checked_hold_the_exact_value_between_them(tolerance: float, times: int) -> None:
    """E[exp(lower - exact)] = E[exp(exact - upper)] = 1 over 2,000 simulated rows of which some repeat. Rates 6e-5 each.

    Also where the upper bounds are repeated, as the gap is not within the tolerance.
    """
    model = LinearGaussian(2, 6, 0.3, widen=0.5, N=2)
    y, z = simulated_rows(model.vae, 2000, seed=3)
    prior = replace(FEW, start="prior")
    asked, repeated = list[str](), []

    def forward(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        asked.append(stream)
        return annealed_importance_sampling(model.vae, y[rows], 10, annealing=annealing, stream=stream, ids=rows)

    def reverse(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        repeated.append((annealing.start, annealing.temperatures))
        return reverse_annealing(model.vae, y[rows], z[rows], 10, annealing=annealing, stream=stream, ids=rows)

    bounds = settled_bounds(y, one_by_one(forward), one_by_one(reverse), FEW, prior, extra=4.0, tolerance=tolerance)
    exact = torch.tensor(model.log_density(y))
    assert {("posterior", 4 * times), ("posterior", 16 * times)} <= set(repeated)
    assert within_error((bounds.lower.log_likelihood - exact).exp(), 1.0)
    assert within_error((exact - bounds.upper.log_likelihood).exp(), 1.0)
    assert bounds.settled is not None
    assert 0 < bounds.settled_share < 1
    gaps = (bounds.upper.log_likelihood - bounds.lower.log_likelihood)[bounds.settled]
    assert bounds.gap.mean == pytest.approx(gaps.mean().item())
    assert bounds.upper_repeated == (times > 1)


def test_a_loose_upper_bound_is_repeated_and_a_low_estimate_is_still_refused() -> None:
    """Upper bounds 0.5 above the truth at first, and then as good as exact; lower ones right, or half a nat too low."""
    y = torch.zeros(40, 3)
    starts = FEW, replace(FEW, start="prior")

    def found(low_by: float, extra: float) -> Bounds:
        def reverse(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
            return estimates([0.01 if "again" in stream else 0.5] * len(rows), 0.01)

        def forward(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
            return estimates([-low_by] * len(rows), 0.01)

        return settled_bounds(y, one_by_one(forward), one_by_one(reverse), *starts, extra=extra, tolerance=0.2)

    once, again, low = found(0.0, extra=0.0), found(0.0, extra=6.0), found(0.5, extra=6.0)
    assert (once.upper_repeated, again.upper_repeated, low.upper_repeated) == (False, True, True)
    assert [round(bounds.gap.mean, 2) for bounds in (once, again, low)] == [0.5, 0.01, 0.51]
    runs = 40 * once.upper.samples * FEW.temperatures * FEW.leapfrog_steps
    assert again.decoder_runs == once.decoder_runs + 4 * runs


@pytest.mark.parametrize(("centres", "expected"), [((0.0, 0.0), False), ((0.0, 9.0), True), ((-9.0, 9.0), False)])
def test_runs_that_end_in_different_places_are_told_apart(centres: tuple[float, float], expected: bool) -> None:
    """Of 16 chains each, in three latents: the same mode, two modes, and a run over both beside a run in one of them.

    False-alarm rate 2e-3 over 500 rows and three features, by Student's t.
    """
    random = torch.Generator().manual_seed(0)

    def run(places: Tensor) -> Estimate:
        z = places + torch.randn(16, 500, 3, generator=random)
        ends = torch.stack([z.mean(dim=0), z.var(dim=0)]).mT.double()
        flat = annealed_importance_sampling(
            LinearGaussian(2, 6, 0.3, widen=1.0, N=2).vae, torch.zeros(1, 6), 16, annealing=FEW
        )
        return replace(flat, ends=ends, effective_sample_size=torch.full((500,), 14.0))

    one, other = centres
    spread = one * other < 0
    side = torch.where(torch.arange(16) % 2 == 0, one, other)[:, None, None]
    first = run(side if spread else torch.full((16, 1, 1), one))
    assert apart(first, run(torch.full((16, 1, 1), other))).unique().tolist() == [expected]


def test_what_float32_cannot_resolve_is_told() -> None:
    """A column thousands of standard deviations from all that the model makes: log p(y) is millions of nats, to half a nat."""
    model = LinearGaussian(3, 4, 0.1, widen=1.0, N=5)
    y = model.y.float().clone()
    y[:, 3] = 1000.0
    found = assess(model.vae.float(), y, annealing=Annealing(20), extra=0.0, bounds_examples=5, samples=100, use_exact=False)
    assert any("precision rounds it by" in reason for reason in found.verdict.reasons)


def test_simulated_rows_have_the_gaps_of_the_rows() -> None:
    vae = small_vae({"name": "mixed", "columns": [{"name": "gaussian"}] * 4}, inputs=[Input(missing=True)] * 4)
    y = rows_for({"name": "gaussian"}, N=12)
    y[:, 1] = torch.nan
    few: dict[str, Any] = {"annealing": Annealing(5), "extra": 0.0, "bounds_examples": 6, "samples": 100, "prior_samples": 100}
    found = assess(vae, y, use_exact=False, **few)
    assert found.bounds is not None
    assert found.bounds.y.isnan().equal((torch.arange(4) == 1).expand(6, 4))


def test_exact_values_are_reported_where_there_are_any() -> None:
    model = LinearGaussian(2, 6, 0.3, widen=1.0, N=8)
    found = assess(model.vae, model.y)
    assert found.verdict.trusted
    assert found.exact is not None
    assert found.decoder_runs == 0
    np.testing.assert_allclose(found.log_likelihood.numpy(), model.log_likelihood, rtol=1e-9)


@pytest.mark.parametrize(
    ("setting", "rule"), [({"extra": -1.0}, "extra must be at least 0"), ({"tolerance": 0.0}, "tolerance greater than 0")]
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], rule: str) -> None:
    model = LinearGaussian(2, 6, 0.3, widen=1.0, N=2)
    with pytest.raises(ValueError, match=rule):
        assess(model.vae, model.y, **setting)
