"""Statistics of a column that add up over blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
T = TypeVar("T")


@dataclass(frozen=True)
class Moments:
    """The number of values, their mean, and the sum of the squared deviations from it.

    Blocks are joined as Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
    (1979), eq. 2.1, do: no digits are lost where the mean is large beside the spread.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, x: Array) -> Self:
        """The moments of the values that are not NaN."""
        missing = np.isnan(x)
        count = int(x.size - np.count_nonzero(missing))
        if not count:
            return cls()
        with np.errstate(all="ignore"):  # prepare refuses what comes of it
            mean = float(_without(x, missing).sum() / count)
            return cls(count, mean, float(np.square(_without(x - mean, missing)).sum()))

    def __add__(self, other: Moments) -> Moments:
        if not (self.count and other.count):
            return self if self.count else other
        count, difference = self.count + other.count, other.mean - self.mean
        with np.errstate(all="ignore"):
            between = np.float64(difference) ** 2 * (self.count * (other.count / count))
            mean = self.mean + difference * (other.count / count)
            return Moments(count, mean, float(self.squares + other.squares + between))

    @property
    def std(self) -> float:
        """The standard deviation, dividing by the number; NaN without values."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan


@dataclass(frozen=True)
class Range:
    """Least and greatest value; infinite without values."""

    least: float = math.inf
    greatest: float = -math.inf

    @classmethod
    def of(cls, x: Array) -> Self:
        """The range of the values that are not NaN."""
        x = x[~np.isnan(x)]
        return cls(float(x.min()), float(x.max())) if len(x) else cls()

    def __add__(self, other: Range) -> Range:
        return Range(min(self.least, other.least), max(self.greatest, other.greatest))

    @property
    def is_constant(self) -> bool:
        """Whether the values agree to twelve digits."""
        return self.greatest - self.least <= 1e-12 * max(abs(self.least), abs(self.greatest))


def summed(parts: Iterable[Sequence[T]]) -> list[T]:
    """The sums of sequences, element by element, in the order that they come in."""
    total: list[T] = []
    for part in parts:
        total = list(map(add, total, part)) if total else list(part)
    return total


def _without(x: Array, missing: NDArray[np.bool_]) -> Array:
    return np.where(missing, 0.0, x) if missing.any() else x
