"""Increasing maps between a column's raw values x and its prepared values y, each with its inverse and its derivative.

log p(x) = log p(y) + log dy/dx: what a density of y says of x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.interpolate import BSpline, make_interp_spline
from scipy.special import ndtri
from typing_extensions import override

Array = NDArray[np.floating]
KNOTS, ROWS_PER_KNOT = 100, 10  # of a quantile transformation: at most so many, and one for so many training rows
MOST_TIED = 0.05  # share of the training rows that may have the same value under it
STEEPEST = 100.0  # it rises, in standard deviations of y over those of x


class Transform(BaseModel, ABC):
    """An increasing map x -> y of one column.

    Attributes:
        name: As in ``data.columns``.
        least: x must be greater, if this is not None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    least: float | None = None

    @classmethod
    @abstractmethod
    def fit(cls, train: Array) -> Self:
        """The map for a column whose observed training values are ``train``, (N,)."""

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Prepared values of raw ones."""

    @abstractmethod
    def inverse(self, y: Array) -> Array:
        """Raw values of prepared ones."""

    @abstractmethod
    def log_derivative(self, y: Array) -> Array:
        """log dy/dx in nats, at prepared values."""


class Identity(Transform):
    """y = x."""

    name: Literal["none"] = "none"

    @override
    @classmethod
    def fit(cls, train: Array) -> Self:
        return cls()

    @override
    def forward(self, x: Array) -> Array:
        return x

    @override
    def inverse(self, y: Array) -> Array:
        return y

    @override
    def log_derivative(self, y: Array) -> Array:
        return np.zeros_like(y)


class Standardize(Transform):
    """y = (x - shift) / scale: mean 0 and standard deviation 1 over the training rows."""

    name: Literal["standardize"] = "standardize"
    shift: float
    scale: float

    @override
    @classmethod
    def fit(cls, train: Array) -> Self:
        with np.errstate(over="ignore", invalid="ignore"):  # prepare refuses what comes of it
            return cls(shift=float(train.mean()), scale=float(train.std()))

    @override
    def forward(self, x: Array) -> Array:
        return (x - self.shift) / self.scale

    @override
    def inverse(self, y: Array) -> Array:
        return y * self.scale + self.shift

    @override
    def log_derivative(self, y: Array) -> Array:
        return np.full_like(y, -math.log(self.scale))


class Log(Transform):
    """y = (log x - shift) / scale for x > 0: the logarithms standardised over the training rows."""

    name: Literal["log"] = "log"
    least: float | None = 0.0
    shift: float
    scale: float

    @override
    @classmethod
    def fit(cls, train: Array) -> Self:
        logs = np.log(train)
        return cls(shift=float(logs.mean()), scale=float(logs.std()))

    @override
    def forward(self, x: Array) -> Array:
        return (np.log(x) - self.shift) / self.scale

    @override
    def inverse(self, y: Array) -> Array:
        return np.exp(y * self.scale + self.shift)

    @override
    def log_derivative(self, y: Array) -> Array:
        """dy/dx = 1 / (scale x)."""
        return -(y * self.scale + self.shift) - math.log(self.scale)


class Quantile(Transform):
    """Quantiles of the training rows to those of the standard normal, linear between and beyond them.

    Unlike scikit-learn's QuantileTransformer it is strictly increasing everywhere, so that each x has an inverse and a
    derivative: equal values share a knot, no piece is steeper than `STEEPEST`, and the outermost pieces go on for ever.

    Attributes:
        x: Knots, increasing.
        y: Their images, increasing.

    Raises:
        ValueError: If training rows repeat a value too often.
    """

    name: Literal["quantile"] = "quantile"
    x: list[float]
    y: list[float]

    @override
    @classmethod
    def fit(cls, train: Array) -> Self:
        values, counts = np.unique(train, return_counts=True)
        if counts.max() > max(1, MOST_TIED * len(train)):
            raise ValueError(
                f"transform quantile needs values that differ, but {counts.max()} of {len(train)} training values are "
                f"{values[counts.argmax()]:g}; choose standardize or log"
            )
        knots = max(2, min(KNOTS, len(train) // ROWS_PER_KNOT))
        shares = (np.cumsum(counts) - counts / 2) / len(train)
        at = np.unique(np.searchsorted(shares, np.linspace(shares[0], shares[-1], knots)).clip(0, len(values) - 1))
        x, y = _not_too_steep(values[at], ndtri(shares[at]), STEEPEST / train.std())
        return cls(x=x, y=y)

    @override
    def forward(self, x: Array) -> Array:
        return _line(self.x, self.y)(x)

    @override
    def inverse(self, y: Array) -> Array:
        return _line(self.y, self.x)(y)

    @override
    def log_derivative(self, y: Array) -> Array:
        return -np.log(_line(self.y, self.x).derivative()(y))


def _line(x: list[float], y: list[float]) -> BSpline:
    return make_interp_spline(x, y, k=1)


def _not_too_steep(x: Array, y: Array, steepest: float) -> tuple[list[float], list[float]]:
    """The knots to which the line from the knot before does not rise too steeply; always the outermost two."""
    kept = [0]
    for k in range(1, len(x)):
        if y[k] - y[kept[-1]] <= steepest * (x[k] - x[kept[-1]]):
            kept.append(k)
    if len(kept) == 1:
        kept.append(len(x) - 1)
    return x[kept].tolist(), y[kept].tolist()


TRANSFORMS: dict[str, type[Identity | Standardize | Log | Quantile]] = {
    "none": Identity,
    "standardize": Standardize,
    "log": Log,
    "quantile": Quantile,
}
