"""What scipy says of each likelihood: log density or probability per column, from the network's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, log_softmax, softmax

from vae.likelihoods import Likelihood

Array = NDArray[np.float64]
Oracle = Callable[[Any, tuple[Array, ...], Array], Array]


def log_prob(name: str, module: Likelihood, f: Array, y: Array) -> Array:
    """Per column, shape (N, D)."""
    return ORACLES[name](module, tuple(np.split(f, module.features, axis=-1)), y)


def softplus(f: Array) -> Array:
    return np.logaddexp(0, f)


def _values(positive: Any) -> Array:
    return np.asarray(positive().detach().numpy())


def _gaussian(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    return np.asarray(stats.norm.logpdf(y, f[0], np.sqrt(np.asarray(module.variance.detach().numpy()))))


def _ordinal(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    cumulative = stats.logistic.cdf(module.thresholds.detach().numpy() - f[0][..., None])
    levels = np.diff(np.pad(cumulative, [(0, 0), (0, 0), (1, 1)], constant_values=(0, 1)), axis=-1)
    return np.log(np.take_along_axis(levels, y.astype(int)[..., None], axis=-1)[..., 0])


def _categorical(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    logs = log_softmax(np.stack(f, axis=-1), axis=-1)
    return np.asarray(np.take_along_axis(logs, y.astype(int)[..., None], axis=-1)[..., 0])


def _negative_binomial(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    r, mean = _values(module.concentration), np.exp(f[0])
    return np.asarray(stats.nbinom.logpmf(y, r, r / (r + mean)))


def _zero_inflated(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    counted = expit(-f[1]) * np.exp(_negative_binomial(module, f, y))
    return np.log(np.where(y == 0, expit(f[1]) + counted, counted))


def _beta(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    return np.asarray(stats.beta.logpdf(y, 0.01 + softplus(f[0]), 0.01 + softplus(f[1])))


def _inflated_beta(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    zero, one, between = np.moveaxis(softmax(np.stack(f[2:], axis=-1), axis=-1), -1, 0)
    with np.errstate(divide="ignore"):
        density = np.log(between) + _beta(module, f, np.clip(y, 1e-300, 1 - 1e-16))
    return np.where(y == 0, np.log(zero), np.where(y == 1, np.log(one), density))


def _discretized_logistic(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    p, edges = stats.logistic(f[0], _values(module.scale)), y / module.levels - 0.5
    low = np.where(y == 0, 0, p.cdf(edges))
    high = np.where(y == module.levels - 1, 1, p.cdf(edges + 1 / module.levels))
    return np.log(high - low)


def _continuous_bernoulli(module: Any, f: tuple[Array, ...], y: Array) -> Array:
    """A truncated exponential distribution in the logit."""
    return np.asarray(f[0] * y - np.log(np.expm1(f[0]) / f[0]))


ORACLES: dict[str, Oracle] = {
    "gaussian": _gaussian,
    "gaussian_learned": _gaussian,
    "gaussian_per_dimension": _gaussian,
    "gaussian_heteroscedastic": lambda m, f, y: stats.norm.logpdf(y, f[0], np.sqrt(m.min_variance + softplus(f[1]))),
    "student_t": lambda m, f, y: stats.t.logpdf(y, _values(m.degrees), f[0], _values(m.scale)),
    "log_normal": lambda m, f, y: stats.lognorm.logpdf(y, _values(m.scale), scale=np.exp(f[0])),
    "gamma": lambda m, f, y: stats.gamma.logpdf(y, _values(m.shape), scale=np.exp(f[0]) / _values(m.shape)),
    "beta": _beta,
    "zero_one_inflated_beta": _inflated_beta,
    "bernoulli": lambda m, f, y: stats.bernoulli.logpmf(y, expit(f[0])),
    "categorical": _categorical,
    "ordinal": _ordinal,
    "binomial": lambda m, f, y: stats.binom.logpmf(y, int(m.trials), expit(f[0])),
    "poisson": lambda m, f, y: stats.poisson.logpmf(y, np.exp(f[0])),
    "negative_binomial": _negative_binomial,
    "zero_inflated_negative_binomial": _zero_inflated,
    "discretized_logistic": _discretized_logistic,
    "continuous_bernoulli": _continuous_bernoulli,
}
