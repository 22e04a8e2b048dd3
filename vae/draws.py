"""Draws from torch's univariate distributions by an explicit generator, which torch's own ``sample`` does not take."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Generator, Size, Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    Distribution,
    Gamma,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)


@singledispatch
def draw(p: Distribution, shape: Size, generator: Generator | None) -> Tensor:
    """Draws of shape ``shape``, to which the batch shape of ``p`` is broadcast.

    Raises:
        NotImplementedError: If this kind of distribution has no entry here.
    """
    raise NotImplementedError(f"no draws from {type(p).__name__}")


@draw.register
def _(p: Normal, shape: Size, generator: Generator | None) -> Tensor:
    return p.loc + p.scale * gaussian(p.loc, shape, generator)


@draw.register
def _(p: LogNormal, shape: Size, generator: Generator | None) -> Tensor:
    return (p.loc + p.scale * gaussian(p.loc, shape, generator)).exp()


@draw.register
def _(p: StudentT, shape: Size, generator: Generator | None) -> Tensor:
    """A normal over the root of a gamma of mean 1."""
    half = (p.df / 2).expand(shape)
    return p.loc + p.scale * gaussian(p.loc, shape, generator) / (gamma(half, generator) / half).sqrt()


@draw.register
def _(p: Beta, shape: Size, generator: Generator | None) -> Tensor:
    """a / (a + b) of two gammas, kept inside (0, 1)."""
    a, b = (gamma(of.expand(shape), generator) for of in (p.concentration1, p.concentration0))
    edge = torch.finfo(a.dtype).eps
    return (a / (a + b)).clamp(edge, 1 - edge)


@draw.register
def _(p: Gamma, shape: Size, generator: Generator | None) -> Tensor:
    """Kept above 0, which a small shape would reach by rounding."""
    drawn = gamma(p.concentration.expand(shape), generator) / p.rate
    return drawn.clamp_min(torch.finfo(drawn.dtype).tiny)


@draw.register
def _(p: ContinuousBernoulli, shape: Size, generator: Generator | None) -> Tensor:
    return p.icdf(uniform(p.probs, shape, generator))


@draw.register
def _(p: Poisson, shape: Size, generator: Generator | None) -> Tensor:
    return torch.poisson(p.rate.expand(shape), generator=generator)


@draw.register
def _(p: NegativeBinomial, shape: Size, generator: Generator | None) -> Tensor:
    """A Poisson whose rate is a gamma."""
    rate = gamma(p.total_count.expand(shape), generator) * p.logits.exp()
    return torch.poisson(rate, generator=generator)


@draw.register
def _(p: Binomial, shape: Size, generator: Generator | None) -> Tensor:
    count, probs = (of.expand(shape).contiguous() for of in (p.total_count, p.probs))
    return torch.binomial(count, probs, generator=generator)


@draw.register
def _(p: Categorical, shape: Size, generator: Generator | None) -> Tensor:
    """The first level whose cumulative probability exceeds a uniform number."""
    cumulative = p.probs.cumsum(dim=-1)[..., :-1]
    return (uniform(p.probs, shape, generator)[..., None] > cumulative).sum(dim=-1).to(p.probs.dtype)


def gaussian(like: Tensor, shape: Size, generator: Generator | None) -> Tensor:
    """Standard normal numbers of the dtype and device of ``like``."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def uniform(like: Tensor, shape: Size, generator: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of the dtype and device of ``like``."""
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)


def gamma(concentration: Tensor, generator: Generator | None) -> Tensor:
    """Standard gamma numbers."""
    return torch._standard_gamma(concentration, generator=generator)
