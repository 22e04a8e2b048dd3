"""Columns modelled one by one: the baseline of data for which there is no mixture, and what any joint model should beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from sklearn.mixture import GaussianMixture

from pipeline.kinds import Kind
from pipeline.moments import Array
from pipeline.schema import Column, Schema

LogDensity = Callable[[Array], Array]  # of values (N,), in nats
Fit = Callable[[Array, Column], LogDensity]
# floors as those of a VAE by default: of scales in standard deviations of the training rows, of variances in prepared units
LEAST_SCALE, LEAST_DEGREES, FLOOR = 1e-2, 1.0, 1e-4


class IndependentColumns:
    """The product of univariate distributions, each of the family of its column's kind that is best on validation rows.

    Missing values (NaN) contribute nothing. Densities are of prepared values, as a VAE's are.

    Args:
        schema: Of the columns.
        valid: Validation rows (N, D).

    Attributes:
        families_: The name of the family by column.
    """

    def __init__(self, schema: Schema, valid: Array) -> None:
        self._schema, self._valid = schema, valid

    def fit(self, X: Array) -> Self:
        """Fit to training rows (N, D)."""
        self.families_: dict[str, str] = {}
        self._fitted: list[LogDensity] = []
        for d, column in enumerate(self._schema.columns):
            name, density = _best(column, X[:, d], self._valid[:, d])
            self.families_[column.name] = name
            self._fitted.append(density)
        return self

    def score_samples(self, X: Array) -> Array:
        """Log density of the observed values per row, (N,), in nats."""
        return np.sum([_observed(density, X[:, d]) for d, density in enumerate(self._fitted)], axis=0)


def _best(column: Column, train: Array, valid: Array) -> tuple[str, LogDensity]:
    y = train[~np.isnan(train)].astype(np.float64)
    families = {name: fit for name, fit in FAMILIES[column.kind].items() if name not in POSITIVE or column.range[0] > 0}
    fitted = {name: fit(y, column) for name, fit in families.items()}
    best = max(fitted, key=lambda name: _observed(fitted[name], valid).sum())
    return best, fitted[best]


def _observed(density: LogDensity, y: Array) -> Array:
    known = ~np.isnan(y)
    terms = np.zeros(len(y))
    terms[known] = density(np.asarray(y[known], dtype=np.float64))
    return terms


def _real(family: Any, y: Array, column: Column) -> LogDensity:
    """Of any real numbers: shapes and location by maximum likelihood, neither too narrow nor too heavy in the tails."""
    *shapes, loc, scale = family.fit(y)
    if family is stats.t:
        shapes = [max(shapes[0], LEAST_DEGREES)]
    return lambda values: family.logpdf(values, *shapes, loc, max(scale, LEAST_SCALE * y.std()))


def _positive(family: Any, y: Array, column: Column) -> LogDensity:
    """Of positive raw numbers, as a density of the prepared ones."""
    inverse, log_derivative = column.transform.inverse, column.transform.log_derivative
    parameters = family.fit(inverse(y), floc=0)
    return lambda values: family.logpdf(inverse(values), *parameters) - log_derivative(values)


def _mixture(components: int, y: Array, column: Column) -> LogDensity:
    mixture = GaussianMixture(min(components, len(np.unique(y))), reg_covar=FLOOR, random_state=0).fit(y[:, None])
    return lambda values: mixture.score_samples(values[:, None])


def _frequencies(y: Array, column: Column) -> LogDensity:
    """Laplace's rule of succession over the categories."""
    levels = len(column.categories) if column.categories else 2
    counts = np.bincount(y.astype(int), minlength=levels) + 1.0
    log_shares = np.log(counts / counts.sum())
    return lambda values: log_shares[values.astype(int)]


def _poisson(y: Array, column: Column) -> LogDensity:
    return lambda values: stats.poisson.logpmf(values, max(y.mean(), 0.5 / len(y)))


def _negative_binomial(y: Array, column: Column, *, inflated: bool = False) -> LogDensity:
    """Maximum likelihood; ``inflated`` with more zeros than it would have."""
    mean = max(y.mean(), 0.5 / len(y))
    size = mean**2 / max(y.var() - mean, 0.1 * mean)

    def log_density(parameters: Array, values: Array) -> Array:
        r, m, logit = np.exp(parameters[0]), np.exp(parameters[1]), parameters[2] if inflated else -np.inf
        counted = stats.nbinom.logpmf(values, r, r / (r + m)) - np.logaddexp(0, logit)
        zeros = np.logaddexp(-np.logaddexp(0, -logit), counted) if inflated else counted
        return np.where(values == 0, zeros, counted)

    start = np.array([np.log(size), np.log(mean), -2.0][: 3 if inflated else 2])
    found = minimize(lambda parameters: -log_density(parameters, y).mean(), start, method="Nelder-Mead")
    return partial(log_density, found.x)


FAMILIES: Mapping[Kind, Mapping[str, Fit]] = {
    "continuous": {
        "normal": partial(_real, stats.norm),
        "student_t": partial(_real, stats.t),
        "skew_normal": partial(_real, stats.skewnorm),
        "log_normal": partial(_positive, stats.lognorm),
        "gamma": partial(_positive, stats.gamma),
        "mixture of 2 normals": partial(_mixture, 2),
        "mixture of 4 normals": partial(_mixture, 4),
    },
    "count": {
        "poisson": _poisson,
        "negative_binomial": _negative_binomial,
        "zero_inflated_negative_binomial": partial(_negative_binomial, inflated=True),
    },
    "binary": {"bernoulli": _frequencies},
    "categorical": {"categorical": _frequencies},
    "ordinal": {"categorical": _frequencies},
}
POSITIVE = ("log_normal", "gamma")  # where all raw values are
