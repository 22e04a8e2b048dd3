"""Counts given their total: probabilities of the count vectors of each total that sum to 1, whatever is missing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.anchors import small_vae
from vae import likelihoods
from vae.evidence import Annealing, annealed_importance_sampling, exact, importance_sampling, log_likelihood_given_rest
from vae.likelihoods import DirichletMultinomial, Mixed
from vae.likelihoods.shares import GivenTotal
from vae.model.conditionals import build_likelihood

LIBRARY: dict[str, Any] = {"name": "dirichlet_multinomial", "library": 6}
OUTPUTS = [
    (0.0, 0.0, 0.0, 0.0),
    (0.3, -1.0, 2.0, 0.5),
    (60.0, -60.0, 59.0, 0.0),
    (-60.0,) * 4,
    (1e4, 1e4, 0.0, -1e4),
    (17.0,) * 4,
]
by_output = pytest.mark.parametrize("f", OUTPUTS, ids=str)


def vectors(D: int, n: int) -> torch.Tensor:
    """All count vectors of D columns whose total is n."""
    kept = [y for y in itertools.product(range(n + 1), repeat=D) if sum(y) == n]
    return torch.tensor(kept, dtype=torch.float32)


def given(f: tuple[float, ...]) -> GivenTotal:
    """In float32, as it is trained."""
    with torch.no_grad():
        return DirichletMultinomial(len(f), library=6)(torch.tensor(f, dtype=torch.float32))


@by_output
@pytest.mark.parametrize("n", [0, 1, 7])
def test_probabilities_of_a_total_sum_to_one(f: tuple[float, ...], n: int) -> None:
    y = vectors(4, n)
    found = given(f).log_prob(y)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(given(f).log_prob_columns(y).sum(dim=-1), found, rtol=1e-9, atol=1e-6)


@by_output
def test_so_do_those_of_what_is_observed(f: tuple[float, ...]) -> None:
    """For every pattern of missing values, given the total of the others."""
    for missing in itertools.product([False, True], repeat=4):
        seen = [d for d in range(4) if not missing[d]]
        y = torch.full((len(vectors(len(seen), 5)) if seen else 1, 4), torch.nan)
        if seen:
            y[:, seen] = vectors(len(seen), 5)
        assert given(f).log_prob(y).exp().sum().item() == pytest.approx(1, abs=1e-6)
        columns = given(f).log_prob_columns(y)
        assert (columns[:, list(missing)] == 0).all()
        torch.testing.assert_close(columns.sum(dim=-1), given(f).log_prob(y), rtol=1e-9, atol=1e-6)


def test_parts_and_the_split_of_the_total_make_the_whole() -> None:
    """p(y) = p(total of some) p(these given theirs) p(the others given theirs), of the same shares."""
    y, p = vectors(4, 7), given(OUTPUTS[1])
    some, others = y.clone(), y.clone()
    some[:, 2:], others[:, :2] = torch.nan, torch.nan
    a, b = p.concentrations[:2].sum().item(), p.concentrations[2:].sum().item()
    of_split = stats.betabinom(7, a, b).logpmf(y[:, :2].sum(dim=1).numpy())
    expected = p.log_prob(some) + p.log_prob(others) + torch.from_numpy(of_split)
    torch.testing.assert_close(p.log_prob(y), expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("total", [30, 10**4, 10**6])
def test_large_totals_equal_scipy(total: int) -> None:
    rng = np.random.default_rng(0)
    f = rng.normal(size=50).astype(np.float32) + np.float32(np.log(total / 50))
    y = rng.multinomial(total, rng.dirichlet(np.exp(f)), size=5)
    expected = stats.dirichlet_multinomial(np.exp(f.astype(np.float64)), total).logpmf(y)
    np.testing.assert_allclose(given(tuple(f.tolist())).log_prob(torch.tensor(y, dtype=torch.float32)), expected, atol=1e-5)


def test_draws_follow_the_probabilities() -> None:
    """A chi-squared test of the 84 vectors of a total of 6, at 3e-5 for each of three; small concentrations among them."""
    y = vectors(4, 6)
    for f in (OUTPUTS[0], OUTPUTS[1], (-9.0, -8.0, -10.0, -8.5)):
        p = given(f)
        draws = p.sample((20_000,), torch.Generator().manual_seed(0))
        assert draws.dtype == torch.float32
        assert (draws.sum(dim=1) == 6).all()
        counts = (draws[:, None] == y).all(dim=-1).sum(dim=0).numpy()
        expected = p.log_prob(y).exp().numpy() * len(draws)
        few = expected < 5
        counts, expected = (np.append(of[~few], of[few].sum()) for of in (counts, expected))
        kept = expected > 1
        assert stats.chisquare(counts[kept], expected[kept] * counts[kept].sum() / expected[kept].sum()).pvalue > 3e-5
        probabilities = p.log_prob(y).exp()
        mean = probabilities @ y.double()
        torch.testing.assert_close(p.mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(p.variance.double(), probabilities @ (y - mean).square(), rtol=1e-4, atol=1e-6)


def test_gradients_are_finite_and_right() -> None:
    y = vectors(4, 7)
    for f in OUTPUTS + [tuple(side * value for value in (1e30, 0.0, 1.0, -1e4)) for side in (-1, 1)]:
        outputs = torch.tensor(f, dtype=torch.float32, requires_grad=True)
        DirichletMultinomial(4, library=6)(outputs).log_prob(y).sum().backward()
        assert outputs.grad is not None
        assert outputs.grad.isfinite().all()
    module, holes = DirichletMultinomial(4, library=6).double(), y.double()
    holes[::3, 1] = torch.nan
    outputs = torch.randn(len(y), 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: module(f).log_prob(holes), outputs)
    assert torch.autograd.gradcheck(lambda f: module(f).log_prob_columns(holes), outputs)


def test_columns_that_share_a_total_beside_others() -> None:
    """In a mixed likelihood the sum over all values of each total is 1, gaps or not; the groups are in the columns' order."""
    columns = [LIBRARY, {"name": "bernoulli"}, LIBRARY, {"name": "categorical", "levels": 3}, LIBRARY]
    likelihood = build_likelihood({"name": "mixed", "columns": columns}, 5)
    assert isinstance(likelihood, Mixed)
    assert likelihood.totals(5) == [[0, 2, 4]]
    f = torch.randn(likelihood.outputs(5), generator=torch.Generator().manual_seed(0))
    rows = [[*y, b, c] for y in vectors(3, 5).tolist() for b in (0, 1) for c in (0, 1, 2)]
    y = torch.tensor(rows)[:, [0, 3, 1, 4, 2]]
    with torch.no_grad():
        assert likelihood(f).log_prob(y).exp().sum().item() == pytest.approx(1, abs=1e-5)
        gaps = y[(y[:, 2] == 0) & (y[:, 3] == 0)].clone()
        gaps[:, 2:4] = torch.nan
        assert likelihood(f).log_prob(gaps).exp().sum().item() == pytest.approx(1, abs=1e-5)
        draws = likelihood(f).sample((10,), torch.Generator().manual_seed(0))
    assert (draws[:, [0, 2, 4]].sum(dim=1) == 6).all()


def test_library_of_zero_inflated_counts_is_this() -> None:
    assert isinstance(build_likelihood({"name": "zero_inflated_negative_binomial", "library": 6.0}, 3), DirichletMultinomial)
    plain = build_likelihood({"name": "zero_inflated_negative_binomial", "library": None}, 3)
    assert isinstance(plain, likelihoods.ZeroInflatedNegativeBinomial)
    with pytest.raises(ValueError, match="give two or more columns the same library, or leave it out; got 1"):
        build_likelihood(LIBRARY, 1)
    with pytest.raises(ValueError, match="library must be greater than 0; got -1"):
        build_likelihood({"name": "dirichlet_multinomial", "library": -1}, 3)


def test_no_model_is_above_the_distribution_that_made_the_rows() -> None:
    """The mean of p_model / p_truth over rows of the truth is at most 1: here 1, within 4 standard errors of 4,000 rows."""
    truth = GivenTotal(torch.linspace(0.2, 3, 20, dtype=torch.float64), torch.tensor(200.0), torch.float64)
    y = truth.sample((4000,), torch.Generator().manual_seed(1))
    model = GivenTotal(torch.linspace(0.25, 2.8, 20, dtype=torch.float64), torch.tensor(200.0), torch.float64)
    ratios = (model.log_prob(y) - truth.log_prob(y)).exp()
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / len(y) ** 0.5
    assert model.log_prob(y).mean() < truth.log_prob(y).mean()


def test_estimators_agree_with_quadrature_and_a_value_given_its_row_with_the_ratio_of_two_rows() -> None:
    """p(y_d | others, total) = p(y | total) / p(others | their total); 0.1 nats are four Monte Carlo errors and more."""
    y = torch.tensor(np.random.default_rng(0).poisson(3, size=(3, 4)), dtype=torch.float64)
    vae = small_vae({"name": "mixed", "columns": [LIBRARY] * 4}, inputs=[{"missing": True}] * 4)
    truth = exact(vae, y).log_likelihood
    torch.testing.assert_close(importance_sampling(vae, y, 20_000).log_likelihood, truth, atol=0.1, rtol=0)
    settings = Annealing(temperatures=200, leapfrog_steps=3)
    torch.testing.assert_close(
        annealed_importance_sampling(vae, y, 128, annealing=settings).log_likelihood, truth, atol=0.1, rtol=0
    )
    rest = log_likelihood_given_rest(vae, y, 20_000)
    for d in range(4):
        others = y.clone()
        others[:, d] = torch.nan
        torch.testing.assert_close(rest[:, d], truth - exact(vae, others).log_likelihood, atol=0.1, rtol=0)
