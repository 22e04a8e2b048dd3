"""Increasing maps between a column's raw values x and its prepared values y, each with its inverse and its derivative.

log p(x) = log p(y) + log dy/dx: what a density of y says of x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtri
from typing_extensions import override

from pipeline.tables.statistics import Array, Moments

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

KNOTS, ROWS_PER_KNOT = 100, 10  # of a quantile transformation: at most so many, and one for so many training rows
MOST_TIED = 0.05  # share of the training rows that may have the same value under it
STEEPEST = 100.0  # it rises, in standard deviations of y over those of x


class AllValues(NamedTuple):
    """All values of a column, of one block of rows after the other."""

    parts: tuple[Array, ...]

    def __add__(self, other: AllValues) -> AllValues:  # type: ignore[override]
        return AllValues(self.parts + other.parts)


class Transform(BaseModel, ABC):
    """An increasing map x -> y of one column.

    Attributes:
        name: What ``data.columns`` calls it.
        least: x must be greater, if this is not None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    least: float | None = None

    by_values: ClassVar[bool] = False  # whether a summary holds all values, so that not many fit into memory

    @classmethod
    @abstractmethod
    def summary(cls, train: Array) -> Any:
        """What is to be known of observed training values, (N,); it adds up over blocks of rows with ``+``."""

    @classmethod
    @abstractmethod
    def of(cls, summary: Any) -> Self:
        """The map for a column whose observed training values have this summary."""

    @classmethod
    def fit(cls, train: Array) -> Self:
        """The map for a column whose observed training values are ``train``, (N,)."""
        return cls.of(cls.summary(train))

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
    def summary(cls, train: Array) -> Moments:
        return Moments()

    @override
    @classmethod
    def of(cls, summary: Moments) -> Self:
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
    def summary(cls, train: Array) -> Moments:
        return Moments.of(train)

    @override
    @classmethod
    def of(cls, summary: Moments) -> Self:
        return cls(shift=summary.mean, scale=summary.std)

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
    def summary(cls, train: Array) -> Moments:
        return Moments.of(np.log(train))

    @override
    @classmethod
    def of(cls, summary: Moments) -> Self:
        return cls(shift=summary.mean, scale=summary.std)

    @override
    def forward(self, x: Array) -> Array:
        return (np.log(x) - self.shift) / self.scale

    @override
    def inverse(self, y: Array) -> Array:
        return np.exp(y * self.scale + self.shift)

    @override
    def log_derivative(self, y: Array) -> Array:
        """log dy/dx in nats, of dy/dx = 1 / (scale x)."""
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

    by_values: ClassVar[bool] = True

    name: Literal["quantile"] = "quantile"
    x: list[float]
    y: list[float]

    @override
    @classmethod
    def summary(cls, train: Array) -> AllValues:
        return AllValues((train,))

    @override
    @classmethod
    def of(cls, summary: AllValues) -> Self:
        train = np.concatenate(summary.parts)
        std = train.std()
        train.sort()
        starts = np.flatnonzero(np.append(True, train[1:] != train[:-1]))
        counts = np.diff(starts, append=len(train))
        if counts.max() > max(1, MOST_TIED * len(train)):
            raise ValueError(
                f"transform quantile needs values that differ, but {counts.max()} of {len(train)} training values are "
                f"{train[starts[counts.argmax()]]:g}; choose standardize or log"
            )
        knots = max(2, min(KNOTS, len(train) // ROWS_PER_KNOT))
        shares = (starts + counts / 2) / len(train)
        at = np.unique(np.searchsorted(shares, np.linspace(shares[0], shares[-1], knots)).clip(0, len(starts) - 1))
        x, y = train[starts[at]], ndtri(shares[at])
        kept = [0]  # the knots to which the line from the knot before does not rise too steeply; at least the outermost two
        for k in range(1, len(x)):
            if y[k] - y[kept[-1]] <= STEEPEST / std * (x[k] - x[kept[-1]]):
                kept.append(k)
        kept = kept if len(kept) > 1 else [0, len(x) - 1]
        return cls(x=x[kept].tolist(), y=y[kept].tolist())

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
    from scipy.interpolate import make_interp_spline

    return make_interp_spline(x, y, k=1)


TRANSFORMS: dict[str, type[Transform]] = {"none": Identity, "standardize": Standardize, "log": Log, "quantile": Quantile}
AnyTransform: Any = Annotated[reduce(or_, TRANSFORMS.values()), Field(discriminator="name")]
