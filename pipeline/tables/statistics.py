"""Statistics of a column that add up over blocks of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

CANDIDATES = 20  # values that may be frequent, which are kept count of


@dataclass(frozen=True)
class Moments:
    """Number, mean, and sum of squared deviations from it.

    Blocks are joined as Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
    (1979), eq. 2.1, do: no digits are lost where the mean is large beside the spread.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, x: Array) -> Self:
        """Of the values that are not NaN."""
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
        """Standard deviation, dividing by the number; NaN without values."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan


@dataclass(frozen=True)
class Range:
    """Least and greatest value; infinite without values."""

    least: float = math.inf
    greatest: float = -math.inf

    @classmethod
    def of(cls, x: Array) -> Self:
        """Of the values that are not NaN."""
        x = x[~np.isnan(x)]
        return cls(float(x.min()), float(x.max())) if len(x) else cls()

    def __add__(self, other: Range) -> Range:
        return Range(min(self.least, other.least), max(self.greatest, other.greatest))

    @property
    def is_constant(self) -> bool:
        """Whether the values agree to twelve digits."""
        return self.greatest - self.least <= 1e-12 * max(abs(self.least), abs(self.greatest))


@dataclass(frozen=True)
class Frequent:
    """Every value that makes up more than 1 / (`CANDIDATES` + 1) of a column, and maybe others.

    A summary of Misra and Gries, joined as Agarwal et al., "Mergeable summaries" (2012), sec. 2: a value's count is too small
    by `lost` at the most.

    Attributes:
        counts: Of the candidates.
        lost: By how much a count may be too small.
        total: Number of values.
    """

    counts: dict[float, int] = field(default_factory=dict)
    lost: int = 0
    total: int = 0

    @classmethod
    def of(cls, x: Array) -> Frequent:
        """Of the values that are not NaN."""
        values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
        top = np.argsort(-counts, kind="stable")[: CANDIDATES + 1]
        return _reduced(dict(zip(values[top].tolist(), counts[top].tolist(), strict=True)), 0, int(counts.sum()))

    def __add__(self, other: Frequent) -> Frequent:
        counts = dict(self.counts)
        for value, count in other.counts.items():
            counts[value] = counts.get(value, 0) + count
        return _reduced(counts, self.lost + other.lost, self.total + other.total)

    def above(self, share: float) -> list[float]:
        """The values that may be more than this share of the column."""
        return [value for value, count in self.counts.items() if count + self.lost > share * self.total]


def _reduced(counts: dict[float, int], lost: int, total: int) -> Frequent:
    least = sorted(counts.values(), reverse=True)[CANDIDATES] if len(counts) > CANDIDATES else 0
    return Frequent({value: count - least for value, count in counts.items() if count > least}, lost + least, total)


def _without(x: Array, missing: NDArray[np.bool_]) -> Array:
    return np.where(missing, 0.0, x) if missing.any() else x
