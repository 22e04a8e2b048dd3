"""Rows of which there may be millions, memory-mapped, looked at some at a time, or some of them only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tables.statistics import Array

AT_A_TIME = 2**20  # values: 8 MiB


def slices(y: Array) -> Iterator[Array]:
    """The rows of y (N, D), as many at a time as are looked at together."""
    count = max(1, AT_A_TIME // y.shape[1])
    return (np.asarray(y[first : first + count]) for first in range(0, len(y), count))


def by_slices(function: Callable[[Array], Any], y: Array) -> NDArray[Any]:
    """What a function of rows gives for each of y (N, D), (N,)."""
    return np.concatenate([function(rows) for rows in slices(y)])


def some_of(N: int, most: int, seed: int) -> NDArray[np.int64]:
    """Positions of all of N rows, or of so many of them at random, increasing."""
    return np.arange(N) if most >= N else np.sort(np.random.default_rng(seed).permutation(N)[:most])
