"""Distributions over vectors: torch's, sampling from an explicit generator.

The event is the last dimension; ``log_prob`` sums over it, ``log_prob_columns`` does not.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Normal, register_kl
from typing_extensions import override

from vae.distributions.draws import draw, rounded

LOG_2_PI = math.log(2 * math.pi)
LARGEST_GRADIENT = 1e15  # of what goes into a float64 density by the density: float32 has the squares of such numbers
Shape = Size | list[int] | tuple[int, ...]


class Widen(torch.autograd.Function):
    """Numbers in another dtype and within bounds, whose gradient comes back as if there were none, but not too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, largest: float) -> Tensor:
        """Numbers x of any shape."""
        ctx.dtype = x.dtype
        return x.to(dtype).clamp(-largest, largest)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient by x, of the same shape."""
        return gradient.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT).to(ctx.dtype), None, None


def wide(x: Tensor, largest: float = math.inf) -> Tensor:
    """Network outputs, learned numbers or values in float64, in which log densities are computed.

    In float32 they would cancel: log Gamma of a count of 1e5 is known to 0.06 nats. Apple's GPUs have no float64.

    Args:
        x: The numbers.
        largest: Their absolute value is no larger: a density stays one whatever the network's output is. The gradient of one
            that is goes on pointing it back.
    """
    dtype = x.dtype if x.device.type == "mps" else torch.float64
    if x.requires_grad and (x.dtype != dtype or largest < math.inf):
        widened: Tensor = Widen.apply(x, dtype, largest)
        return widened
    return x.to(dtype) if largest == math.inf else x.to(dtype).clamp(-largest, largest)


class Columns(Independent[Distribution]):
    """Independent distributions of D columns.

    Args:
        base: One for each column, of batch shape (..., D), with parameters that are `wide`.
        dtype: Of draws, means and variances: the network's. Log densities are of the parameters' dtype.
    """

    def __init__(self, base: Distribution, dtype: torch.dtype) -> None:
        super().__init__(base, 1, validate_args=False)
        self._dtype = dtype

    @property
    @override
    def mean(self) -> Tensor:
        """The mean of each column, shape (..., D)."""
        return self.base_dist.mean.to(self._dtype)

    @property
    @override
    def variance(self) -> Tensor:
        """The variance of each column, shape (..., D)."""
        return self.base_dist.variance.to(self._dtype)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density or probability in nats, shape (...): the sum over D."""
        return self.log_prob_columns(value).sum(dim=-1)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log density or probability of each column in nats, shape (..., D)."""
        return self.base_dist.log_prob(wide(value))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
        return rounded(draw(self.base_dist, self._extended_shape(Size(sample_shape)), generator), self._dtype)


class DiagonalNormal(Distribution):
    """N(mean, diag(stddev^2)) over the last dimension.

    Not made of torch's `Normal`, which takes as long to construct as a layer takes to run on a small batch.

    Args:
        mean: Shape (..., D).
        stddev: Standard deviations, broadcast against ``mean``.
    """

    arg_constraints = {}  # noqa: RUF012  # as torch declares it

    def __init__(self, mean: Tensor, stddev: Tensor) -> None:
        self._mean, self._stddev = mean, stddev  # not yet broadcast: its logarithm is taken once, not for every draw
        shape = mean.shape if mean.ndim >= stddev.ndim else torch.broadcast_shapes(mean.shape, stddev.shape)
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        """The mean of each column, shape (..., D)."""
        return self._mean

    @property
    @override
    def stddev(self) -> Tensor:
        """The standard deviation of each column, shape (..., D)."""
        return self._stddev if self._stddev.shape == self._mean.shape else self._stddev.expand_as(self._mean)

    @property
    @override
    def variance(self) -> Tensor:
        """The variance of each column, shape (..., D)."""
        return self.stddev.square()

    @property
    def base_dist(self) -> Normal:
        """The columns' distributions, of batch shape (..., D)."""
        return Normal(self._mean, self.stddev, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...): the sum over D."""
        D = self.event_shape[0]
        squares = ((value - self._mean) / self._stddev).square().sum(dim=-1)
        log_stddev = self._stddev.log()
        normaliser = log_stddev.expand(*log_stddev.shape[:-1], D).sum(dim=-1)
        return -0.5 * squares - normaliser - D / 2 * LOG_2_PI

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log density of each column in nats, shape (..., D)."""
        return self.base_dist.log_prob(value)

    @property
    def extent(self) -> tuple[Tensor, Tensor]:
        """Centre and scale (..., D) of a box: what is more than 9 scales from the centre has a mass of e^-40 or less."""
        return self.mean, self.stddev

    def detach(self) -> DiagonalNormal:
        """The same distribution, through whose parameters no gradient passes."""
        return DiagonalNormal(self._mean.detach(), self._stddev.detach())

    def score(self, value: Tensor) -> Tensor:
        """The gradient of the log density by the value, shape (..., D)."""
        return (self._mean - value) / self._stddev.square()

    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape (..., D) as draws from this distribution, differentiably."""
        return torch.addcmul(self._mean, self._stddev, noise)

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws, shape ``sample_shape + (..., D)``."""
        shape = self._extended_shape(Size(sample_shape))
        mean = self._mean
        return self.transform(torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
        return self.rsample(sample_shape, generator)


class UnitNormal(DiagonalNormal):
    """N(0, I) over the last dimension.

    Args:
        mean: Zeros, shape (D,).
        stddev: Ones, shape (D,).
    """

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...): the sum over D."""
        return -0.5 * value.square().sum(dim=-1) - self.event_shape[0] / 2 * LOG_2_PI

    @override
    def score(self, value: Tensor) -> Tensor:
        """The gradient of the log density by the value, shape (..., D)."""
        return -value


@register_kl(DiagonalNormal, DiagonalNormal)  # type: ignore[untyped-decorator]
def _kl_of_normals(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    """Sum of ((s_q^2 + (m_q - m_p)^2) / s_p^2 - 1) / 2 + log s_p / s_q (Kingma and Welling 2014, appendix B, extended)."""
    squares = ((q.stddev / p.stddev).square() + ((q.mean - p.mean) / p.stddev).square()).sum(dim=-1)
    return 0.5 * (squares - q.event_shape[0]) - (q.stddev.log() - p.stddev.log()).sum(dim=-1)


@register_kl(DiagonalNormal, UnitNormal)  # type: ignore[untyped-decorator]
def _kl_from_unit_normal(q: DiagonalNormal, p: UnitNormal) -> Tensor:
    """KL(q || N(0, I)), as in Kingma and Welling 2014, appendix B."""
    mean, stddev = q.mean, q.stddev
    parts = torch.addcmul(torch.addcmul(stddev.log(), mean, mean, value=-0.5), stddev, stddev, value=-0.5)
    return -q.event_shape[0] / 2 - parts.sum(dim=-1)


class VectorDistribution(Protocol):
    """What every distribution over vectors offers."""

    @property
    def mean(self) -> Tensor:
        """The mean of each column, shape (..., D)."""

    @property
    def variance(self) -> Tensor:
        """The variance of each column, shape (..., D)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density or probability in nats, shape (...)."""

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log density or probability of each column in nats, shape (..., D)."""

    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
