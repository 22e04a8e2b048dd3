"""Columns modelled one by one: the baseline of data for which there is no mixture, and what any joint model should beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from sklearn.mixture import GaussianMixture

from pipeline.tables.kinds import Kind
from pipeline.tables.schema import Column, Schema
from pipeline.tables.statistics import Array

LogDensity = Callable[[Array], Array]  # of values (N,), in nats
Fit = Callable[[Array, Column], LogDensity]
# floors as those of a VAE by default: of scales in standard deviations of the training rows, of variances in prepared units
LEAST_SCALE, LEAST_DEGREES, FLOOR = 1e-2, 1.0, 1e-4
LEAST_SHARED, LARGEST_SHARED = 1e-2, 1e6  # concentrations of columns that share a total: of all, and of one


class Family(NamedTuple):
    """A family of distributions: how one is fitted, and how many parameters that has."""

    fit: Fit
    parameters: int


class IndependentColumns:
    """The product of univariate distributions, each of the family of its column's kind that is best on the training rows.

    Best is the largest log-likelihood minus number of parameters (Akaike 1974): no other row has a say. Missing values (NaN)
    contribute nothing. Densities are of prepared values, as a VAE's are. Columns whose total the VAE is given share it, in
    the same proportions in all rows, so that both are given the same.

    Args:
        schema: Of the columns.
        totals: The columns of each total that is given.

    Attributes:
        families_: The name of the family by column.
    """

    def __init__(self, schema: Schema, totals: Sequence[Sequence[int]] = ()) -> None:
        self._schema, self._totals = schema, totals

    def fit(self, X: Array) -> Self:
        """Fit to training rows (N, D)."""
        self.families_: dict[str, str] = {}
        self._fitted: list[tuple[int, LogDensity]] = []
        shared = {d for total in self._totals for d in total}
        for d, column in enumerate(self._schema.columns):
            if d in shared:
                self.families_[column.name] = "dirichlet_multinomial"
                continue
            self.families_[column.name], density = _best(column, X[:, d])
            self._fitted.append((d, density))
        self._shares = [(total, SharesOfTotal().fit(X[:, total])) for total in self._totals]
        return self

    def score_samples(self, X: Array) -> Array:
        """Log density of the observed values per row, (N,), in nats."""
        parts = [_observed(density, X[:, d]) for d, density in self._fitted]
        return np.sum(parts + [shares.score_samples(X[:, total]) for total, shares in self._shares], axis=0)


class SharesOfTotal:
    """Counts given their total, of which each column has a share that is the same in all rows but for Dirichlet noise.

    The same probability as `vae.likelihoods.DirichletMultinomial` has, here with one set of concentrations, fitted by maximum
    likelihood. A missing count (NaN) is left out of its row's total.

    Attributes:
        concentrations_: Of the columns, (D,).
    """

    def fit(self, X: Array) -> Self:
        """Fit to counts (N, D)."""
        y, seen = np.nan_to_num(np.asarray(X, dtype=np.float64)), ~np.isnan(X)
        share = (y.sum(axis=0) + 0.5) / (y.sum() + 0.5 * y.shape[1])

        def loss(logs: Array) -> tuple[float, Array]:
            a = np.exp(logs)
            n, A = y.sum(axis=1, keepdims=True), _sum_of(a, seen)[:, None]
            slope = seen * (digamma(y + a) - digamma(a) + digamma(A) - digamma(n + A)) * a
            return -self._log_prob(y, seen, a).mean(), -slope.mean(axis=0)

        start = np.log(share * min(max(y.shape[1], 10.0), LARGEST_SHARED))
        bounds = [(np.log(least), np.log(LARGEST_SHARED)) for least in share * LEAST_SHARED]
        optimum = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        self.concentrations_: Array = np.exp(optimum.x)
        return self

    def score_samples(self, X: Array) -> Array:
        """Log probability of each row's counts given their total, (N,), in nats."""
        return self._log_prob(np.nan_to_num(np.asarray(X, dtype=np.float64)), ~np.isnan(X), self.concentrations_)

    @staticmethod
    def _log_prob(y: Array, seen: Array, a: Array) -> Array:
        n, A = y.sum(axis=1), _sum_of(a, seen)
        own = (gammaln(y + a) - gammaln(a) - gammaln(y + 1)).sum(axis=1, where=seen)
        return np.asarray(gammaln(n + 1) + gammaln(A) - gammaln(n + A) + own)


def _sum_of(a: Array, seen: Array) -> Array:
    """The sum of those that are seen, (N,); 1 where none is, and nothing is shared out."""
    return np.where(seen.any(axis=1), (a * seen).sum(axis=1), 1.0)


def _best(column: Column, train: Array) -> tuple[str, LogDensity]:
    """The family that is best on the training values of a column, by name, and its log density."""
    y = train[~np.isnan(train)].astype(np.float64)
    next_below = column.numbers(np.nextafter(np.float32(y.min()), np.float32(-np.inf)))  # as well as float32 can tell
    families = {name: family for name, family in FAMILIES[column.kind].items() if name not in POSITIVE or next_below > 0}
    fitted = {name: family.fit(y, column) for name, family in families.items()}
    best = max(fitted, key=lambda name: fitted[name](y).sum() - families[name].parameters)
    return best, fitted[best]


def _observed(density: LogDensity, y: Array) -> Array:
    """The log density of each value (N,), 0 where it is missing."""
    known = ~np.isnan(y)
    terms = np.zeros(len(y))
    terms[known] = density(np.asarray(y[known], dtype=np.float64))
    return terms


def fit_real(family: Any, y: Array, column: Column) -> LogDensity:
    """Fit a family of real numbers by maximum likelihood, neither too narrow nor too heavy in the tails."""
    *shapes, loc, scale = family.fit(y)
    if family is stats.t:
        shapes = [max(shapes[0], LEAST_DEGREES)]
    return lambda values: family.logpdf(values, *shapes, loc, max(scale, LEAST_SCALE * y.std()))


def fit_positive(family: Any, y: Array, column: Column) -> LogDensity:
    """Fit a family of positive raw numbers, as a density of the prepared ones.

    A row that is not trained on may have another: one part in n + 1 (Laplace's rule of succession) is a normal distribution.
    """
    inverse, log_derivative, n = column.transform.inverse, column.transform.log_derivative, len(y)
    parameters, elsewhere = family.fit(inverse(y), floc=0), fit_real(stats.norm, y, column)

    def log_density(values: Array) -> Array:
        positive = family.logpdf(inverse(values), *parameters) - log_derivative(values)
        return np.logaddexp(positive + np.log(n), elsewhere(values)) - np.log(n + 1)

    return log_density


def fit_mixture(components: int, y: Array, column: Column) -> LogDensity:
    """Fit a mixture of normal distributions, of no more than there are different values."""
    mixture = GaussianMixture(min(components, len(np.unique(y))), reg_covar=FLOOR, random_state=0).fit(y[:, None])
    return lambda values: mixture.score_samples(values[:, None])


def fit_frequencies(y: Array, column: Column) -> LogDensity:
    """Fit probabilities of the categories by Laplace's rule of succession."""
    levels = len(column.categories) if column.categories else 2
    counts = np.bincount(y.astype(int), minlength=levels) + 1.0
    log_shares = np.log(counts / counts.sum())
    return lambda values: log_shares[values.astype(int)]


def fit_poisson(y: Array, column: Column) -> LogDensity:
    """Fit a Poisson distribution, whose mean is above 0 also where all values are 0."""
    return lambda values: stats.poisson.logpmf(values, max(y.mean(), 0.5 / len(y)))


def fit_negative_binomial(y: Array, column: Column, *, inflated: bool = False) -> LogDensity:
    """Fit a negative binomial distribution by maximum likelihood; ``inflated`` with more zeros than it would have."""
    mean = max(y.mean(), 0.5 / len(y))
    size = mean**2 / max(y.var() - mean, 0.1 * mean)

    def log_density(parameters: Array, values: Array) -> Array:
        r, m, logit = np.exp(parameters[0]), np.exp(parameters[1]), parameters[2] if inflated else -np.inf
        counted = stats.nbinom.logpmf(values, r, r / (r + m)) - np.logaddexp(0, logit)
        zeros = np.logaddexp(-np.logaddexp(0, -logit), counted) if inflated else counted
        return np.where(values == 0, zeros, counted)

    start = np.array([np.log(size), np.log(mean), -2.0][: 3 if inflated else 2])
    optimum = minimize(lambda parameters: -log_density(parameters, y).mean(), start, method="Nelder-Mead")
    return partial(log_density, optimum.x)


FAMILIES: Mapping[Kind, Mapping[str, Family]] = {
    "continuous": {
        "normal": Family(partial(fit_real, stats.norm), 2),
        "student_t": Family(partial(fit_real, stats.t), 3),
        "skew_normal": Family(partial(fit_real, stats.skewnorm), 3),
        "log_normal": Family(partial(fit_positive, stats.lognorm), 2),
        "gamma": Family(partial(fit_positive, stats.gamma), 2),
        "mixture of 2 normals": Family(partial(fit_mixture, 2), 5),
        "mixture of 4 normals": Family(partial(fit_mixture, 4), 11),
    },
    "count": {
        "poisson": Family(fit_poisson, 1),
        "negative_binomial": Family(fit_negative_binomial, 2),
        "zero_inflated_negative_binomial": Family(partial(fit_negative_binomial, inflated=True), 3),
    },
    "binary": {"bernoulli": Family(fit_frequencies, 1)},
    "categorical": {"categorical": Family(fit_frequencies, 1)},  # the only one
    "ordinal": {"categorical": Family(fit_frequencies, 1)},
}
POSITIVE = ("log_normal", "gamma")  # where all raw values of the training rows are
