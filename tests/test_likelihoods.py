"""The contract of every likelihood: oracle, normalisation, sampling, gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, stats

from tests import oracles
from tests.anchors import LIKELIHOODS, SIGMAS, TOGETHER, rows_for, small_vae
from vae import likelihoods
from vae.distributions import bernoulli
from vae.distributions.supports import BINARY
from vae.likelihoods.continuous import Inflated
from vae.likelihoods.likelihood import Measure
from vae.options.declaration import lookup
from vae.options.registry import LIKELIHOODS as REGISTRY

by_name = pytest.mark.parametrize("options", LIKELIHOODS, ids=lambda o: o["name"])


def test_every_registered_likelihood_is_under_contract() -> None:
    assert {options["name"] for options in LIKELIHOODS + TOGETHER} == set(REGISTRY)


def build(options: dict[str, Any], D: int) -> likelihoods.Likelihood:
    keywords = {k: v for k, v in options.items() if k != "name"}
    module: likelihoods.Likelihood = REGISTRY[options["name"]].build(likelihoods, D, **keywords)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -1, 1, generator=torch.Generator().manual_seed(3))
    return module.double()


def outputs(module: likelihoods.Likelihood, N: int, D: int, seed: int = 2) -> torch.Tensor:
    """Of a network, some."""
    return torch.randn(N, module.features * D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@by_name
def test_log_prob_equals_scipy(options: dict[str, Any]) -> None:
    module, y = build(options, 4), rows_for(options)
    f = outputs(module, 20, 4)
    expected = oracles.log_prob(options["name"], module, f.numpy(), y.numpy())
    p = module(f)
    np.testing.assert_allclose(p.log_prob_columns(y).detach(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(p.log_prob(y).detach(), expected.sum(axis=1), rtol=1e-9, atol=1e-12)


@by_name
@torch.no_grad()
def test_normalised(options: dict[str, Any]) -> None:
    """Sums over its values, or integrates over its support, or both, to 1."""
    module = build(options, 2)
    for p in (module(f) for f in outputs(module, 3, 2)):
        points, edges = whole(module)
        total = p.log_prob_columns(points[:, None].expand(-1, 2)).exp().sum(dim=0).numpy()
        for low, high in itertools.pairwise(edges):
            total = total + [integral(p, column, low, high) for column in range(2)]
        np.testing.assert_allclose(total, 1, atol=1e-7)


def whole(module: likelihoods.Likelihood) -> tuple[torch.Tensor, list[float]]:
    """The points of a support, and the ends of the intervals in it."""
    support = module.support
    if module.measure == "probability":
        largest = int(support.name.partition("..")[2]) if ".." in support.name else 1 if support is BINARY else 5000
        return torch.arange(largest + 1, dtype=torch.float64), []
    intervals = {"real": [-np.inf, 0, np.inf], "positive": [0, 1, np.inf], "unit": [0, 0.5, 1], "closed unit": [0, 0.5, 1]}
    return torch.empty(0, dtype=torch.float64), intervals[support.name]


def integral(p: Any, column: int, low: float, high: float) -> float:
    """Of the density of a column, and the probability of the points at 0 and 1 where there are."""

    def density(y: float) -> float:
        return float(p.log_prob_columns(torch.full((2,), y, dtype=torch.float64))[column].exp())

    ends = 0.0
    if isinstance(getattr(p, "base_dist", None), Inflated):
        ends = density(low) if low == 0 else density(high)
    return float(integrate.quad(density, low, high, limit=200)[0]) + ends


@by_name
def test_support_holds_where_log_prob_is_finite(options: dict[str, Any]) -> None:
    module = build(options, 1)
    y = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 1e6, np.nan, np.inf], dtype=torch.float64)
    assert module.support.contains(y).tolist() == [module.support.contains(value) for value in y.numpy()]
    assert not module.support.contains(y)[-2:].any()
    inside = torch.cat([y[module.support.contains(y)], torch.tensor([module.support.inner])])
    assert module.support.contains(inside).all()
    with torch.no_grad():
        assert module(outputs(module, 1, 1)).log_prob(inside[:, None].double()).isfinite().all()


@by_name
def test_draws_lie_in_the_support_and_fit(options: dict[str, Any]) -> None:
    """A chi-squared test of 20 cells on 2 columns, at 6e-5 for both."""
    module, N = build(options, 2), 20_000
    with torch.no_grad():
        p = module(outputs(module, 1, 2)[0])
        draws = p.sample((N,), torch.Generator().manual_seed(5))
        assert module.support.contains(draws).all()
        for column in range(2):
            assert fits(p, draws[:, column].numpy(), column, module.measure), column


def fits(p: Any, draws: NDArray[np.float64], column: int, measure: Measure) -> bool:
    """Counts in cells that hold about as many draws each, against their probabilities by sums or quadrature."""
    if measure != "density":
        values = np.unique(draws[(draws == 0) | (draws == 1)] if measure == "both" else draws)
        y = torch.tensor(values)[:, None].expand(-1, 2)
        probabilities = p.log_prob_columns(y)[:, column].exp().numpy()
        counts = np.array([(draws == value).sum() for value in values])
    else:
        edges = np.quantile(draws, np.linspace(0, 1, 21)[1:-1])
        counts = np.histogram(draws, np.concatenate([[-np.inf], edges, [np.inf]]))[0][1:-1]
        probabilities = np.array([integral(p, column, low, high) for low, high in itertools.pairwise(edges)])
    expected = probabilities * len(draws)
    large = expected > 5
    observed = np.append(counts[large], len(draws) - counts[large].sum())
    wanted = np.append(expected[large], len(draws) - expected[large].sum())
    if wanted[-1] < 5:
        observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
    return bool(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 3e-5)


@by_name
def test_samples_have_the_mean_and_variance_of_the_distribution(options: dict[str, Any]) -> None:
    """8 tests a likelihood at 6e-5 each: false-alarm rate below 5e-4."""
    module = build(options, 4)
    p = module(torch.tensor([0.0, 0.5, -1.0, 2.0], dtype=torch.float64).repeat(module.features))
    draws = p.sample((20_000,), torch.Generator().manual_seed(5)).numpy()
    variance = p.variance.detach().numpy()
    errors = (draws.mean(axis=0) - p.mean.detach().numpy()) / np.sqrt(variance / len(draws))
    assert np.abs(errors).max() < SIGMAS
    squares = (draws - p.mean.detach().numpy()) ** 2
    assert np.all(np.abs(squares.mean(axis=0) - variance) < SIGMAS * squares.std(axis=0) / np.sqrt(len(draws)) + 1e-12)


@by_name
def test_sampling_is_a_function_of_the_generator(options: dict[str, Any]) -> None:
    module = build(options, 4)
    p = module(torch.zeros(3, 4 * module.features, dtype=torch.float64))
    first, again = (p.sample((2,), torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (2, 3, 4)
    assert torch.equal(first, again)


@by_name
def test_gradients_reach_every_parameter(options: dict[str, Any]) -> None:
    vae = small_vae(options)
    vae(rows_for(options)).loss.mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_learned_variances_keep_their_floor() -> None:
    module = likelihoods.LearnedGaussian(3, min_variance=0.01)
    with torch.no_grad():
        module.log_excess.fill_(-100.0)
    assert module.variance.item() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("build_bad", "message"),
    [
        (lambda: likelihoods.Gaussian(2, variance=0.0), "variance must be greater than 0; got 0.0"),
        (lambda: likelihoods.LearnedGaussian(2, min_variance=-1.0), "min_variance must be greater than 0; got -1.0"),
        (lambda: lookup("likelihood", REGISTRY, "normal"), "likelihood must be one of bernoulli, .*; got 'normal'"),
    ],
)
def test_bad_options_are_refused(build_bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_bad()


def test_bernoulli_densities_of_many_draws_and_their_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some draws at a time, against torch's own density, logits beyond what e^f can hold among them."""
    monkeypatch.setattr(bernoulli, "SLICE", 70)
    random = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(7, 3, 8, generator=random, dtype=torch.float64)
    logits[0, 0, :4] = torch.tensor([800.0, -800.0, 800.0, -800.0])
    logits.requires_grad_()
    y = (torch.rand(3, 8, generator=random) < 0.5).double()
    y[0, :4] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    weights = torch.rand(7, 3, generator=random, dtype=torch.float64)
    found, direct = bernoulli.IndependentBernoulli(logits), torch.distributions.Bernoulli(logits=logits)
    expected = direct.log_prob(y).sum(dim=-1)
    torch.testing.assert_close(found.log_prob(y), expected)
    gradients = (torch.autograd.grad((weights * value).sum(), logits)[0] for value in (found.log_prob(y), expected))
    torch.testing.assert_close(*gradients)
