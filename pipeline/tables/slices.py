"""Rows of which there may be millions, memory-mapped, looked at some at a time, or some of them only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.tables.statistics import Array

AT_A_TIME = 2**16


def slices(N: int) -> Iterator[slice]:
    """Of N rows, those that are looked at together."""
    return (slice(first, first + AT_A_TIME) for first in range(0, N, AT_A_TIME))


def by_slices(function: Callable[[Array], Array], y: Array) -> Array:
    """What a function of rows gives for each of y (N, D), (N,)."""
    return np.concatenate([function(np.asarray(y[some])) for some in slices(len(y))])


def some_of(N: int, most: int, seed: int) -> NDArray[np.int64]:
    """Positions of all of N rows, or of so many of them at random, increasing."""
    return np.arange(N) if most >= N else np.sort(np.random.default_rng(seed).permutation(N)[:most])
