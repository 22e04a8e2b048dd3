"""The contract of every likelihood: oracle, normalisation, sampling, gradients."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.anchors import LIKELIHOODS, SIGMAS, rows_for, small_vae
from vae import likelihoods
from vae.registry import LIKELIHOODS as REGISTRY
from vae.registry import lookup

by_name = pytest.mark.parametrize("options", LIKELIHOODS, ids=lambda o: o["name"])


def test_every_registered_likelihood_is_under_contract() -> None:
    assert {options["name"] for options in LIKELIHOODS} == set(REGISTRY)


def build(options: dict[str, Any], D: int) -> likelihoods.Likelihood:
    keywords = {k: v for k, v in options.items() if k != "name"}
    module: likelihoods.Likelihood = REGISTRY[options["name"]].build(likelihoods, D, **keywords)
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -1, 1, generator=torch.Generator().manual_seed(3))
    return module.double()


@by_name
def test_log_prob_equals_scipy(options: dict[str, Any]) -> None:
    module, y = build(options, 4), rows_for(options)
    f = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if module.support == "binary":
        expected = stats.bernoulli.logpmf(y, 1 / (1 + np.exp(-f.numpy()))).sum(axis=1)
    else:
        stddev = np.sqrt(torch.as_tensor(module.variance).detach().numpy())
        expected = stats.norm.logpdf(y, f, stddev).sum(axis=1)
    np.testing.assert_allclose(module(f).log_prob(y).detach(), expected, rtol=1e-12)


@by_name
def test_normalised(options: dict[str, Any]) -> None:
    """Sums (binary) or integrates (real, by the trapezoidal rule over +-12 standard deviations in 2 dimensions) to 1."""
    module = build(options, 2)
    p = module(torch.tensor([0.3, -1.1], dtype=torch.float64))
    if module.support == "binary":
        total = sum(p.log_prob(torch.tensor(y, dtype=torch.float64)).exp().item() for y in itertools.product((0, 1), repeat=2))
    else:
        axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        total = p.log_prob(grid).exp().detach().reshape(801, 801).sum().item() * (24 / 800) ** 2
    assert total == pytest.approx(1, abs=1e-9)


@by_name
def test_samples_have_the_mean_and_variance_of_the_distribution(options: dict[str, Any]) -> None:
    """8 tests a likelihood at 6e-5 each: false-alarm rate below 5e-4."""
    p = build(options, 4)(torch.tensor([0.0, 0.5, -1.0, 2.0], dtype=torch.float64))
    draws = p.sample((20_000,), torch.Generator().manual_seed(5)).numpy()
    variance = p.variance.detach().numpy()
    errors = (draws.mean(axis=0) - p.mean.detach().numpy()) / np.sqrt(variance / len(draws))
    assert np.abs(errors).max() < SIGMAS
    squares = (draws - p.mean.detach().numpy()) ** 2
    assert np.all(np.abs(squares.mean(axis=0) - variance) < SIGMAS * squares.std(axis=0) / np.sqrt(len(draws)) + 1e-12)


@by_name
def test_sampling_is_a_function_of_the_generator(options: dict[str, Any]) -> None:
    p = build(options, 4)(torch.zeros(3, 4, dtype=torch.float64))
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
