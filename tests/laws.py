"""The distribution of one column as scipy has it in float64, from a likelihood and its network's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit, log_expit, softmax

from tests.oracles import Array, softplus
from vae.likelihoods import Likelihood

FEW_LEVELS = 1000  # whose probabilities are listed
getcontext().prec = 60


class Listed:
    """Probabilities of 0, ..., levels - 1, by their logarithms."""

    def __init__(self, log_probabilities: Any) -> None:
        self.logs = np.array([float(value) for value in log_probabilities])

    def logpmf(self, y: Array) -> Array:
        return np.asarray(self.logs[y.astype(int)])

    def cdf(self, y: Array) -> Array:
        cumulative = np.append(np.exp(self.logs).cumsum(), 0.0)  # of -1 too
        return np.asarray(cumulative[np.clip(np.floor(y), -1, len(self.logs) - 1).astype(int)])

    def ppf(self, q: Array) -> Array:
        return np.minimum(np.searchsorted(np.exp(self.logs).cumsum(), q), len(self.logs) - 1).astype(float)


@dataclass
class TruncatedExponential:
    """Proportional to e^(f y) on [0, 1]."""

    f: float

    def logpdf(self, y: Array) -> Array:
        f = Decimal(self.f)
        log_normaliser = float(((f.exp() - 1) / f).ln()) if f else 0.0
        return np.asarray(self.f * y - log_normaliser)

    def cdf(self, y: Array) -> Array:
        if not self.f:
            return y
        a = abs(self.f)
        return np.where(self.f < 0, np.expm1(-a * y) / np.expm1(-a), (np.exp(-a * (1 - y)) - np.exp(-a)) / -np.expm1(-a))

    def ppf(self, q: Array) -> Array:
        a = abs(self.f)
        if a < 1e-6:
            return q
        upwards = -np.log1p((1 - q if self.f > 0 else q) * np.expm1(-a)) / a
        return 1 - upwards if self.f > 0 else upwards


@dataclass
class WithPoints:
    """A mixture of points, by their weights, and of another distribution."""

    points: dict[float, float]
    share: float
    other: Any

    def logpdf(self, y: Array) -> Array:
        found = np.log(self.share) + self.other.logpdf(np.clip(y, 1e-300, 1 - 1e-16))
        for point, weight in self.points.items():
            found = np.where(y == point, np.log(weight), found)
        return np.asarray(found)

    def logpmf(self, y: Array) -> Array:
        found = np.log(self.share) + self.other.logpmf(y)
        for point, weight in self.points.items():
            found = np.where(y == point, np.logaddexp(np.log(weight), found), found)
        return np.asarray(found)

    def cdf(self, y: Array) -> Array:
        return np.asarray(self.share * self.other.cdf(y) + sum(weight * (y >= point) for point, weight in self.points.items()))

    def ppf(self, q: Array) -> Array:
        """Of the other one, whose quantiles serve as well."""
        return np.asarray(self.other.ppf(q))


def _logistic_levels(edges: list[Decimal]) -> Listed:
    """Log probabilities between rising edges of a standard logistic variable, and beyond the outer ones."""
    below = [Decimal(0), *(1 / (1 + (-edge).exp()) for edge in edges), Decimal(1)]
    beyond = [Decimal(1), *(1 / (1 + edge.exp()) for edge in edges), Decimal(0)]
    pairs = [max(below[i + 1] - below[i], beyond[i] - beyond[i + 1]) for i in range(len(edges) + 1)]  # one may have cancelled
    return Listed([pair.ln() for pair in pairs])


def _softplus(f: float) -> Decimal:
    return (1 + Decimal(f).exp()).ln()


def _ordinal(m: Any, f: tuple[float, ...]) -> Listed:
    first, *steps = m.steps.detach()[0].tolist()
    edges = [Decimal(first) - Decimal(f[0])]
    for step in steps:
        edges.append(edges[-1] + _softplus(step))
    return _logistic_levels(edges)


def _binned(m: Any, f: tuple[float, ...]) -> Listed:
    scale = Decimal(m.scale.floor) + _softplus(m.scale.raw.item())
    return _logistic_levels([(Decimal(k) / m.levels - Decimal("0.5") - Decimal(f[0])) / scale for k in range(1, m.levels)])


def _negative_binomial(m: Any, f: tuple[float, ...]) -> Any:
    r, mean = m.concentration().item(), np.exp(f[0])
    return stats.nbinom(r, r / (r + mean))


def _inflated(m: Any, f: tuple[float, ...]) -> WithPoints:
    return WithPoints({0.0: expit(f[1])}, expit(-f[1]), _negative_binomial(m, f))


def _beta(f: tuple[float, ...]) -> Any:
    return stats.beta(0.01 + softplus(f[0]), 0.01 + softplus(f[1]))


def _inflated_beta(f: tuple[float, ...]) -> WithPoints:
    zero, one, share = softmax(np.array(f[2:]))
    return WithPoints({0.0: zero, 1.0: one}, share, _beta(f))


def _binomial(m: Any, f: tuple[float, ...]) -> Any:
    n = int(m.trials)
    k = np.arange(n + 1.0)
    if n >= FEW_LEVELS:
        return stats.binom(n, expit(f[0]))
    return Listed(stats.binom(n, 0.5).logpmf(k) + n * np.log(2) + k * log_expit(f[0]) + (n - k) * log_expit(-f[0]))


LAWS: dict[str, Callable[[Any, tuple[float, ...]], Any]] = {
    "gaussian": lambda m, f: stats.norm(f[0], np.sqrt(m.variance.item())),
    "gaussian_learned": lambda m, f: stats.norm(f[0], np.sqrt(m.variance.item())),
    "gaussian_per_dimension": lambda m, f: stats.norm(f[0], np.sqrt(m.variance.item())),
    "gaussian_heteroscedastic": lambda m, f: stats.norm(f[0], np.sqrt(m.min_variance + softplus(f[1]))),
    "student_t": lambda m, f: stats.t(m.degrees().item(), f[0], m.scale().item()),
    "log_normal": lambda m, f: stats.lognorm(m.scale().item(), scale=np.exp(f[0])),
    "gamma": lambda m, f: stats.gamma(m.shape().item(), scale=np.exp(f[0]) / m.shape().item()),
    "beta": lambda m, f: _beta(f),
    "zero_one_inflated_beta": lambda m, f: _inflated_beta(f),
    "bernoulli": lambda m, f: Listed([log_expit(-f[0]), log_expit(f[0])]),
    "categorical": lambda m, f: Listed(np.array(f) - np.logaddexp.reduce(f)),
    "ordinal": _ordinal,
    "binomial": _binomial,
    "poisson": lambda m, f: stats.poisson(np.exp(f[0])),
    "negative_binomial": _negative_binomial,
    "zero_inflated_negative_binomial": _inflated,
    "discretized_logistic": _binned,
    "continuous_bernoulli": lambda m, f: TruncatedExponential(f[0]),
}


def law(name: str, module: Likelihood, f: tuple[float, ...]) -> Any:
    """With ``cdf``, ``ppf`` and ``logpdf`` or ``logpmf``; the module is a float64 copy."""
    return LAWS[name](module, f)
