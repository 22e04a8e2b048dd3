"""Distributions over latents: normal with full covariance, mixtures of normals, and what any of them offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import cast

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, MultivariateNormal, kl_divergence, register_kl
from typing_extensions import override

from vae.distributions.vectors import LOG_2_PI, DiagonalNormal, Shape


def normal_log_prob(noise: Tensor) -> Tensor:
    """Log density of the standard normal at (..., K), shape (...)."""
    return -0.5 * (noise.square().sum(dim=-1) + noise.shape[-1] * LOG_2_PI)


class LatentDistribution(ABC):
    """A distribution over latents (..., K) that need not be normal; `vectors.DiagonalNormal` offers the same.

    Args:
        shape: Of a latent with the batch before it.
    """

    def __init__(self, shape: Size) -> None:
        self.batch_shape, self.event_shape = shape[:-1], shape[-1:]

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...)."""

    @abstractmethod
    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape (..., K) as draws, differentiably."""

    @abstractmethod
    def detach(self) -> LatentDistribution:
        """The same distribution, through whose parameters no gradient passes."""

    @property
    @abstractmethod
    def extent(self) -> tuple[Tensor, Tensor]:
        """Centre and scale (..., K) of a box: what is more than 9 scales from the centre has a mass of e^-40 or less."""

    @abstractmethod
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (..., K)."""

    @property
    def mean(self) -> Tensor:
        """The mean of each dimension, shape (..., K)."""
        return self._mean_and_variance[0]

    @property
    def variance(self) -> Tensor:
        """The variance of each dimension, (..., K)."""
        return self._mean_and_variance[1]

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of each dimension, (..., K)."""
        return self.variance.sqrt()

    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws, shape ``sample_shape + (..., K)``."""
        shape = Size(sample_shape) + self.batch_shape + self.event_shape
        like = self.extent[0]
        return self.transform(torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., K)``."""
        return self.rsample(sample_shape, generator)

    def score(self, value: Tensor) -> Tensor:
        """The gradient of the log density by the value, shape (..., K)."""
        with torch.enable_grad():
            value = value.detach().requires_grad_()
            log_density = self.log_prob(value)
            (gradient,) = torch.autograd.grad(log_density, value, torch.ones_like(log_density))
        return gradient

    @cached_property
    def _mean_and_variance(self) -> tuple[Tensor, Tensor]:
        return self._moments()


class FullNormal(MultivariateNormal):
    """N(mean, L L') over the last dimension.

    Args:
        mean: Shape (..., K).
        scale_tril: L, lower triangular with a positive diagonal, (..., K, K).
    """

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        super().__init__(mean, scale_tril=scale_tril, validate_args=False)

    def detach(self) -> FullNormal:
        """The same distribution, through whose parameters no gradient passes."""
        return FullNormal(self.loc.detach(), self._unbroadcasted_scale_tril.detach())

    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape (..., K) as draws from this distribution, differentiably."""
        return self.loc + torch.einsum("...ij,...j->...i", self._unbroadcasted_scale_tril, noise)

    def score(self, value: Tensor) -> Tensor:
        """The gradient of the log density by the value, shape (..., K)."""
        return torch.einsum("...ij,...j->...i", self._precision, self.loc - value)

    @cached_property
    def _precision(self) -> Tensor:
        return torch.cholesky_inverse(self._unbroadcasted_scale_tril)

    @property
    def extent(self) -> tuple[Tensor, Tensor]:
        """Centre and scale of a box with all but a negligible mass; see `LatentDistribution.extent`."""
        return self.loc, self.stddev

    @override
    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Reparameterised draws, shape ``sample_shape + (..., K)``."""
        shape = self._extended_shape(Size(sample_shape))
        return self.transform(torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device))

    @override
    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., K)``."""
        return self.rsample(sample_shape, generator)


@register_kl(FullNormal, DiagonalNormal)  # type: ignore[untyped-decorator]
def _kl_of_full_normal(q: FullNormal, p: DiagonalNormal) -> Tensor:
    """(1/2) (tr(P C) + d'P d - K) + log sqrt(|P^-1| / |C|), P diagonal (Kingma and Welling 2014, appendix B, extended)."""
    root = q._unbroadcasted_scale_tril
    stretched = (root / p.stddev[..., None]).square().sum(dim=(-2, -1)) + ((q.loc - p.mean) / p.stddev).square().sum(dim=-1)
    log_ratio = (p.stddev.log() - root.diagonal(dim1=-2, dim2=-1).log()).sum(dim=-1)
    return 0.5 * (stretched - q.event_shape[0]) + log_ratio


class NormalMixture(LatentDistribution):
    """sum_m pi_m N(mean_m, diag(stddev_m^2)).

    Squares are expanded into matrix products, in float64 as they cancel: no array has M * K numbers for each latent.

    Args:
        log_weights: log pi_m, (M,).
        mean: Shape (M, K).
        stddev: Shape (M, K).
    """

    def __init__(self, log_weights: Tensor, mean: Tensor, stddev: Tensor) -> None:
        super().__init__(mean.shape[1:])
        self.log_weights, self.means, self.stddevs = log_weights, mean, stddev

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...)."""
        return self._log_parts(value).logsumexp(dim=-1).to(value.dtype)

    @override
    def score(self, value: Tensor) -> Tensor:
        """The gradient of the log density by the value, shape (..., K)."""
        shares = self._log_parts(value).softmax(dim=-1)
        precision, pull, _ = self._products
        return (shares @ pull.T - value.double() * (shares @ precision.T)).to(value.dtype)

    @override
    def transform(self, noise: Tensor) -> Tensor:
        """Not to be had: which component a draw is of is no smooth function of noise.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a mixture's draws are no smooth function of normal noise")

    @override
    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws, shape ``sample_shape + (K,)``; differentiable given their components."""
        shape = Size(sample_shape)
        chosen = torch.multinomial(self.log_weights.exp(), max(1, shape.numel()), replacement=True, generator=generator)
        like = self.means
        noise = torch.randn(*chosen.shape, like.shape[1], generator=generator, dtype=like.dtype, device=like.device)
        return (self.means[chosen] + self.stddevs[chosen] * noise)[: shape.numel()].reshape(*shape, -1)

    @override
    def detach(self) -> NormalMixture:
        """The same distribution, through whose parameters no gradient passes."""
        return NormalMixture(self.log_weights.detach(), self.means.detach(), self.stddevs.detach())

    @property
    @override
    def extent(self) -> tuple[Tensor, Tensor]:
        """The box around the components' boxes."""
        reach = 9 * self.stddevs
        low, high = (self.means - reach).amin(dim=0), (self.means + reach).amax(dim=0)
        return (low + high) / 2, (high - low) / 18

    def _log_parts(self, value: Tensor) -> Tensor:
        """log pi_m N(value; mean_m, stddev_m^2), (..., M), float64."""
        precision, pull, constant = self._products
        value = value.double()
        return value @ pull - 0.5 * (value.square() @ precision) + constant

    @cached_property
    def _products(self) -> tuple[Tensor, Tensor, Tensor]:
        """1 / stddev^2 (K, M), mean / stddev^2 (K, M), and what does not depend on the latent (M,)."""
        mean, stddev = self.means.double(), self.stddevs.double()
        constant = self.log_weights.double() - stddev.log().sum(dim=1) - mean.shape[1] / 2 * LOG_2_PI
        precision = stddev.square().reciprocal()
        return precision.T, (mean * precision).T, constant - 0.5 * (mean.square() * precision).sum(dim=1)

    @override
    def _moments(self) -> tuple[Tensor, Tensor]:
        weights = self.log_weights.exp()[:, None]
        mean = (weights * self.means).sum(dim=0)
        return mean, (weights * (self.stddevs.square() + (self.means - mean).square())).sum(dim=0)


def exact_kl(q: object, p: object) -> Tensor:
    """KL(q || p), shape (...), of two normal distributions, p with diagonal covariance."""
    return kl_divergence(cast("Distribution", q), cast("Distribution", p))
