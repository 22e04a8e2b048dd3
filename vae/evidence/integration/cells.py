"""What a cell of one or two latent dimensions tells of an integrand: a polynomial through some values, checked by others.

The log density is evaluated in the Chebyshev points of a cell and, apart from these, in its Gauss points. It varies as the
network does, however narrow the posterior is, so that a polynomial P follows it where the density itself would hide between
points. How far P is off in the Gauss points says whether it does.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from numpy.polynomial.legendre import leggauss
from torch import Tensor

DEGREE = 12  # of P, in each dimension
FINE = 3  # times as many points P is summed on
RESOLVED, SHARE = 0.1, 0.05  # nats, and of the log density's range, that P may be off where it counts as resolved
SPAN = 100.0  # nats that the log density may vary by on a cell where its exponential can be summed
STEP, FLOOR = 0.1, 0.01  # of its range, and of its size, that a hidden unit may be off


class Profile(NamedTuple):
    """What is known of M integrands, each on a cell; all are (M,).

    Attributes:
        direct: log of the integral, by the values in the Gauss points.
        by_polynomial: Likewise, of exp(P), which knows nothing of these.
        resolved: Whether P follows the log density on the scale of its range.
        close: Whether it does to a tenth of a nat.
        highest: log of what the integral can be at most, if P is resolved.
        least: log of what it is at least, likewise.
    """

    direct: Tensor
    by_polynomial: Tensor
    resolved: Tensor
    close: Tensor
    highest: Tensor
    least: Tensor


class Rule:
    """Points and sums over the cell [-1, 1]^K.

    Args:
        K: 1 or 2.
        like: A tensor whose dtype and device they have.
    """

    def __init__(self, K: int, like: Tensor) -> None:
        self.K, n = K, DEGREE
        self._like = like
        gauss, gauss_weights = leggauss(n)
        own, fine = (np.cos(np.pi * np.arange(m + 1) / m) for m in (n, FINE * n))
        to_degree = np.linalg.inv(chebvander(own, n))
        moments = [2 / (1 - k**2) if k % 2 == 0 else 0.0 for k in range(FINE * n + 1)]
        self._to_gauss, self._to_fine = (
            self._tensor(chebvander(gauss, n) @ to_degree),
            self._tensor(chebvander(fine, n) @ to_degree),
        )
        fine_weights = np.linalg.solve(chebvander(fine, FINE * n).T, moments)
        self._gauss_weights, self._fine_weights = (
            self._grid(self._tensor(weights).log()).sum(dim=1) for weights in (gauss_weights, fine_weights)
        )
        self._grids = [self._grid(self._tensor(points)) for points in (own, gauss)]

    @cached_property
    def points(self) -> Tensor:
        """The Chebyshev points and then the Gauss points, (P, K)."""
        return torch.cat(self._grids)

    def profile(self, values: Tensor) -> Profile:
        """The profiles of integrands whose logarithms in `points` are (M, P).

        A polynomial of degree n in each of K dimensions, of size 1 on the Chebyshev grid of m > n intervals, is
        cos(pi n / 2m)^-K at most between its points (Ehlich and Zeller 1964), and its slope n^2 times that (Markov).
        """
        own, gauss = values.split([len(grid) for grid in self._grids], dim=1)
        fine = self._interpolated(own, self._to_fine)
        error = (self._interpolated(own, self._to_gauss) - gauss).abs().amax(dim=1)
        low, high = torch.minimum(fine.amin(dim=1), values.amin(dim=1)), torch.maximum(fine.amax(dim=1), values.amax(dim=1))
        half = (high - low) / 2 * math.cos(math.pi / (2 * FINE)) ** -self.K + 2 * error
        return Profile(
            (gauss + self._gauss_weights).logsumexp(dim=1),
            (fine + self._fine_weights).logsumexp(dim=1),
            error <= (SHARE * (high - low)).clamp_min(RESOLVED),
            (error <= RESOLVED) & (high - low <= SPAN),
            (low + high) / 2 + half + self.K * math.log(2),
            values.amax(dim=1) - 1 - self.K * (self.K * DEGREE**2 * half).clamp_min(1).log(),
        )

    def steps(self, units: Tensor) -> Tensor:
        """Whether some of the units (C, P, H) of a layer step or bend too sharply between points for P to follow, (C,)."""
        values = units.transpose(1, 2)
        own, gauss = values.split([len(grid) for grid in self._grids], dim=2)
        size = values.abs().amax(dim=2).clamp_min(1)  # the scale on which activations bend: tails of GELU are no steps
        scale = values.amax(dim=2) - values.amin(dim=2) + FLOOR * size
        return ((self._interpolated(own, self._to_gauss) - gauss).abs().amax(dim=2) > STEP * scale).any(dim=1)

    def _interpolated(self, own: Tensor, to: Tensor) -> Tensor:
        """P, from its values in the Chebyshev points (..., P), in other points."""
        if self.K == 1:
            return own @ to.T
        return (to @ own.unflatten(-1, (to.shape[1], -1)) @ to.T).flatten(-2)

    def _grid(self, values: Tensor) -> Tensor:
        """All K-tuples of values (n,), (n^K, K)."""
        return torch.cartesian_prod(*[values] * self.K).reshape(-1, self.K)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=self._like.dtype, device=self._like.device)
