"""The baselines against exact answers."""

from __future__ import annotations

import ast
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.baselines import BernoulliMixture, fit_baselines
from pipeline.evaluation.marginals import FAMILIES, POSITIVE, IndependentColumns, SharesOfTotal
from pipeline.tables.kinds import Kind
from pipeline.tables.schema import Column, Schema
from pipeline.tables.transforms import Standardize


def read(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


def schema(*kinds: Kind, **options: Any) -> Schema:
    """Columns a, b, ... of these kinds."""
    columns = [Column(name=chr(97 + d), kind=kind, **options) for d, kind in enumerate(kinds)]
    return Schema(columns=columns, format=".csv", shape=None, units="", rows={})


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
    single, mixture = fit_baselines(X[:3000], X[3000:], schema(*["binary"] * 4), components=[1, 2], seed=0)
    assert (single.name, single.described, mixture.name, mixture.described) == (
        "bernoulli",
        {"components": 1},
        "mixture",
        {"components": 2},
    )
    assert mixture.density.score_samples(X).mean() > single.density.score_samples(X).mean()


def test_single_gaussian_has_full_covariance() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    single, _ = fit_baselines(X, X, schema(*["continuous"] * 3), components=[1], seed=0)
    expected = stats.multivariate_normal(X.mean(axis=0), np.cov(X.T, bias=True)).logpdf(X)
    assert single.name == "gaussian"
    np.testing.assert_allclose(single.density.score_samples(X), expected, atol=1e-3)


@pytest.mark.skipif(" avx2 " not in read("/proc/cpuinfo"), reason="a CPU without AVX2 has one kind of kernels, or others")
def test_matrix_products_have_the_same_kernels_on_cpus_of_all_makers() -> None:
    """Of two CPUs with AVX-512, the older took SkylakeX's kernels and the newer Haswell's, which round otherwise."""
    loaded = (
        "import pipeline, sklearn.mixture, threadpoolctl as t; print([i.get('architecture') for i in t.threadpool_info()])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, "-c", loaded]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert set(ast.literal_eval(said)) - {None} == {"Haswell"}


def test_rows_of_single_precision_are_scored_in_double() -> None:
    X = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    for base in fit_baselines(X, X, schema(*["continuous"] * 20), components=[2], seed=0):
        np.testing.assert_array_equal(base.density.score_samples(X), base.density.score_samples(X.astype(np.float64)))


def test_more_components_than_rows_are_left_out() -> None:
    X = np.random.default_rng(0).normal(size=(6, 2))
    columns = schema("continuous", "continuous")
    assert fit_baselines(X, X, columns, components=[100, 2], seed=0)[1].described == {"components": 2}
    assert fit_baselines(X, X, columns, components=[100], seed=0)[1].described == {"components": 1}


def test_shares_of_a_total_are_normalised_given_it_and_fitted_by_maximum_likelihood() -> None:
    """Gaps or not; 3,000 rows give the concentrations to 10 % (standard errors about 2 %)."""
    rng, a = np.random.default_rng(0), np.array([0.5, 2.0, 4.0, 1.0])
    X = np.array([rng.multinomial(n, rng.dirichlet(a)) for n in rng.integers(0, 40, 3000)], dtype=float)
    X[::5, 2] = np.nan
    X[0] = np.nan
    shares = SharesOfTotal().fit(X)
    np.testing.assert_allclose(shares.concentrations_, a, rtol=0.1)
    expected = stats.dirichlet_multinomial(shares.concentrations_, X[1].sum().astype(int)).logpmf(X[1].astype(int))
    assert shares.score_samples(X)[1] == pytest.approx(expected)
    assert shares.score_samples(X)[0] == 0
    rows = np.array([y for y in itertools.product(range(6), repeat=4) if sum(y) == 5], dtype=float)
    assert np.exp(shares.score_samples(rows)).sum() == pytest.approx(1)
    holes = np.array([(*y, np.nan) for y in itertools.product(range(6), repeat=3) if sum(y) == 5])
    assert np.exp(shares.score_samples(holes)).sum() == pytest.approx(1)


def test_columns_beside_a_total_are_modelled_by_themselves() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.poisson(5, (200, 2)), rng.integers(0, 2, 200)]).astype(float)
    (found,) = fit_baselines(X, X, schema("count", "count", "binary"), components=[1], seed=0, totals=[[0, 1]])
    assert found.described == {
        "families": {"a": "dirichlet_multinomial", "b": "dirichlet_multinomial", "c": "bernoulli"},
        "given": "each row's total of a, b",
    }
    apart = SharesOfTotal().fit(X[:, :2]).score_samples(X[:, :2])
    alone = IndependentColumns(schema("binary")).fit(X[:, 2:]).score_samples(X[:, 2:])
    np.testing.assert_allclose(found.density.score_samples(X), apart + alone)


DRAWN: dict[str, tuple[Kind, Any]] = {
    "normal": ("continuous", stats.norm(3, 2)),
    "student_t": ("continuous", stats.t(3, loc=-1, scale=0.5)),
    "skew_normal": ("continuous", stats.skewnorm(8, loc=2)),
    "log_normal": ("continuous", stats.lognorm(1.0, scale=3)),
    "gamma": ("continuous", stats.gamma(1.7, scale=2)),
    "mixture of 2 normals": ("continuous", None),
    "poisson": ("count", stats.poisson(4)),
    "negative_binomial": ("count", stats.nbinom(1.5, 0.1)),
}


CONTAINS: dict[str, tuple[str, ...]] = {
    "normal": ("student_t", "skew_normal"),
    "poisson": ("negative_binomial", "zero_inflated_negative_binomial"),
    "negative_binomial": ("zero_inflated_negative_binomial",),
    "mixture of 2 normals": ("mixture of 4 normals",),
}


def two_normals(x: np.ndarray) -> np.ndarray:
    """A log density."""
    return np.logaddexp(np.log(0.3) + stats.norm(-4, 1).logpdf(x), np.log(0.7) + stats.norm(3, 0.5).logpdf(x))


@pytest.mark.parametrize("family", DRAWN)
def test_a_column_gets_the_family_that_it_was_drawn_from(family: str) -> None:
    """20,000 rows: the true family, or one that contains it and is as good, within 0.005 nats of the truth on fresh rows."""
    kind, truth = DRAWN[family]
    rng = np.random.default_rng(0)
    log_density = two_normals if truth is None else truth.logpmf if kind == "count" else truth.logpdf

    def draw() -> np.ndarray:
        if truth is None:
            return np.where(rng.random(20_000) < 0.3, rng.normal(-4, 1, 20_000), rng.normal(3, 0.5, 20_000))
        return truth.rvs(20_000, random_state=rng).astype(float)

    train, test = draw()[:, None], draw()[:, None]
    found = IndependentColumns(schema(kind)).fit(train)
    assert found.families_["a"] in (family, *CONTAINS.get(family, ()))
    difference = log_density(test[:, 0]) - found.score_samples(test)
    assert abs(difference.mean()) < 0.005


def test_repeated_values_do_not_make_a_density_unbounded() -> None:
    """Two fifths of the values are one: no family stands higher there than its floor lets it."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.zeros(400), rng.normal(size=600)])
    for name, family in FAMILIES["continuous"].items():
        if name not in POSITIVE:
            assert family.fit(x, schema("continuous").columns[0])(np.zeros(1)) < np.log(1 / 1e-2)


def test_families_of_positive_numbers_are_of_the_raw_ones() -> None:
    """Also of a column that is standardised; where a training value is not positive they are not fitted."""
    x = np.random.default_rng(0).lognormal(1, 0.5, 4000)
    transform = Standardize.fit(x)
    y = transform.forward(x)[:, None]
    column = Column(name="a", kind="continuous", transform=transform, range=(x.min(), x.max()))
    one = Schema(columns=[column], format=".csv", shape=None, units="", rows={})
    found = IndependentColumns(one).fit(y[:2000])
    assert found.families_ == {"a": "log_normal"}
    raw = found.score_samples(y) + one.log_jacobian(y)
    assert (raw - stats.lognorm(0.5, scale=np.e).logpdf(x)).mean() == pytest.approx(0, abs=0.005)
    touched = np.append(y[:2000], transform.forward(np.zeros((1, 1))), axis=0).astype(np.float32)
    assert IndependentColumns(one).fit(touched).families_ != {"a": "log_normal"}


def test_held_out_rows_choose_no_family() -> None:
    """A test value that is not positive changes nothing but its own density, which is finite, and all of it adds up to 1."""
    x = np.random.default_rng(0).lognormal(1, 0.5, 500)
    one = Schema(
        columns=[Column(name="a", kind="continuous", range=(-3.0, 9.0))], format=".csv", shape=None, units="", rows={}
    )
    found = IndependentColumns(one).fit(x[:, None])
    assert found.families_ == {"a": "log_normal"}
    assert np.isfinite(found.score_samples(np.array([[-3.0], [0.0]]))).all()
    grid = np.linspace(-30, 60, 900_001)
    assert np.exp(found.score_samples(grid[:, None])).sum() * 1e-4 == pytest.approx(1, abs=1e-3)


def test_inflated_counts_are_found_and_normalised() -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random(4000) < 0.4, 0, rng.negative_binomial(5, 0.4, 4000)).astype(float)
    found = IndependentColumns(schema("count")).fit(x[:2000, None])
    assert found.families_ == {"a": "zero_inflated_negative_binomial"}
    for family in FAMILIES["count"].values():
        assert np.exp(family.fit(x, schema("count").columns[0])(np.arange(2000.0))).sum() == pytest.approx(1)


def test_independent_columns_add_up_over_what_is_observed() -> None:
    """Categories by Laplace's rule; a missing value contributes nothing, to the fit or to the score."""
    columns = Schema(
        columns=[
            Column(name="a", kind="categorical", categories=["x", "y", "z"], missing=2),
            Column(name="b", kind="continuous"),
        ],
        format=".csv",
        shape=None,
        units="",
        rows={},
    )
    rng = np.random.default_rng(0)
    X = np.stack([rng.integers(0, 3, 50).astype(float), rng.normal(size=50)], axis=1)
    X[:2, 0] = np.nan
    found = IndependentColumns(columns).fit(X)
    shares = (np.bincount(X[2:, 0].astype(int), minlength=3) + 1) / (48 + 3)
    alone = IndependentColumns(schema("continuous")).fit(X[:, 1:]).score_samples(X[:, 1:])
    np.testing.assert_allclose(found.score_samples(X)[2:] - alone[2:], np.log(shares[X[2:, 0].astype(int)]))
    np.testing.assert_allclose(found.score_samples(X)[:2], alone[:2])
