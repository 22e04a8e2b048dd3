"""The baselines against exact answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from pipeline.baselines import BernoulliMixture, fit_baselines


def two_groups(rows: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    p = np.array([[0.9, 0.8, 0.1, 0.2], [0.1, 0.3, 0.9, 0.7]])[rng.integers(0, 2, rows)]
    return (rng.random(p.shape) < p).astype(float)


@pytest.mark.parametrize("components", [1, 2, 5])
def test_bernoulli_mixture_is_normalised(components: int) -> None:
    mixture = BernoulliMixture(components).fit(two_groups(200))
    rows = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    assert np.exp(mixture.score_samples(rows)).sum() == pytest.approx(1)


def test_one_component_is_independent_bernoullis() -> None:
    X = two_groups(100)
    p = (X.sum(axis=0) + 1) / (len(X) + 2)
    expected = stats.bernoulli.logpmf(X, p).sum(axis=1)
    np.testing.assert_allclose(BernoulliMixture().fit(X).score_samples(X), expected)


def test_em_finds_the_groups() -> None:
    """Components within 0.08 of the truth at 4,000 rows (standard errors about 0.015)."""
    means = BernoulliMixture(2, random_state=1).fit(two_groups()).means_
    means = means[np.argsort(-means[:, 0])]
    np.testing.assert_allclose(means, [[0.9, 0.8, 0.1, 0.2], [0.1, 0.3, 0.9, 0.7]], atol=0.08)


def test_components_are_chosen_on_validation_rows() -> None:
    X = two_groups()
    single, mixture = fit_baselines(X[:3000], X[3000:], binary=True, components=[1, 2], seed=0)
    assert (single.name, single.components, mixture.name, mixture.components) == ("bernoulli", 1, "mixture", 2)
    assert mixture.density.score_samples(X).mean() > single.density.score_samples(X).mean()


def test_single_gaussian_has_full_covariance() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    single, _ = fit_baselines(X, X, binary=False, components=[1], seed=0)
    expected = stats.multivariate_normal(X.mean(axis=0), np.cov(X.T, bias=True)).logpdf(X)
    assert single.name == "gaussian"
    np.testing.assert_allclose(single.density.score_samples(X), expected, atol=1e-3)


def test_more_components_than_rows_are_left_out() -> None:
    X = np.random.default_rng(0).normal(size=(6, 2))
    assert fit_baselines(X, X, binary=False, components=[100, 2], seed=0)[1].components == 2
    assert fit_baselines(X, X, binary=False, components=[100], seed=0)[1].components == 1
