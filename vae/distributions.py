"""Distributions over vectors: torch's, sampling from an explicit generator.

The event is the last dimension; ``log_prob`` sums over it, ``log_prob_columns`` does not.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from typing_extensions import override

from vae.draws import draw

Shape = Size | list[int] | tuple[int, ...]


class Columns(Independent[Distribution]):
    """Independent distributions of D columns.

    Args:
        base: One for each column, of batch shape (..., D).
    """

    def __init__(self, base: Distribution) -> None:
        super().__init__(base, 1, validate_args=False)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log density or probability of each column in nats, shape (..., D)."""
        return self.base_dist.log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
        return draw(self.base_dist, self._extended_shape(Size(sample_shape)), generator)


class DiagonalNormal(Independent[Normal]):
    """N(mean, diag(stddev^2)) over the last dimension.

    Args:
        mean: Shape (..., D).
        stddev: Standard deviations, broadcast against ``mean``.
    """

    def __init__(self, mean: Tensor, stddev: Tensor) -> None:
        super().__init__(Normal(mean, stddev, validate_args=False), 1, validate_args=False)
        self._stddev = stddev  # not yet broadcast: its logarithm is taken once, not for every draw

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...): the sum over D."""
        D = self.event_shape[0]
        squares = ((value - self.mean) / self._stddev).square().sum(dim=-1)
        normaliser = self._stddev.log().expand(*self._stddev.shape[:-1], D).sum(dim=-1)
        return -0.5 * squares - normaliser - D / 2 * math.log(2 * math.pi)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log density of each column in nats, shape (..., D)."""
        return self.base_dist.log_prob(value)

    @property
    def extent(self) -> tuple[Tensor, Tensor]:
        """Centre and scale (..., D) of a box: what is more than 9 scales from the centre has a mass of e^-40 or less."""
        return self.mean, self.stddev

    def detach(self) -> DiagonalNormal:
        """The same distribution, through whose parameters no gradient passes."""
        return DiagonalNormal(self.mean.detach(), self._stddev.detach())

    def score(self, value: Tensor) -> Tensor:
        """The gradient of the log density by the value, shape (..., D)."""
        return (self.mean - value) / self._stddev.square()

    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape (..., D) as draws from this distribution, differentiably."""
        return self.mean + self.stddev * noise

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws, shape ``sample_shape + (..., D)``."""
        shape = self._extended_shape(Size(sample_shape))
        mean = self.mean
        return self.transform(torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
        return self.rsample(sample_shape, generator)


class IndependentBernoulli(Independent[Bernoulli]):
    """A product of Bernoulli distributions over the last dimension, from logits of shape (..., D)."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log probability of each column in nats, shape (..., D)."""
        return self.base_dist.log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws in {0, 1}, shape ``sample_shape + (..., D)``."""
        probabilities = self.mean.expand(self._extended_shape(Size(sample_shape)))
        return torch.bernoulli(probabilities, generator=generator)


class VectorDistribution(Protocol):
    """What every distribution over vectors offers."""

    @property
    def mean(self) -> Tensor:
        """Shape (..., D)."""

    @property
    def variance(self) -> Tensor:
        """Shape (..., D)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density or probability in nats, shape (...)."""

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Of each column, shape (..., D)."""

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
