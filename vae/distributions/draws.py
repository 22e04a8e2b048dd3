"""Draws from torch's univariate distributions by an explicit generator, which torch's own ``sample`` does not take."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Generator, Size, Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Categorical,
    Distribution,
    LogNormal,
    Normal,
)

COUNTABLE = 1e15


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
def _(p: Beta, shape: Size, generator: Generator | None) -> Tensor:
    """a / (a + b) of two gammas, kept inside (0, 1)."""
    a, b = (gamma(part.expand(shape), generator) for part in (p.concentration1, p.concentration0))
    info = torch.finfo(a.dtype)
    return (a / (a + b)).clamp(info.tiny, 1 - info.eps / 2)


@draw.register
def _(p: Binomial, shape: Size, generator: Generator | None) -> Tensor:
    count, probs = (part.expand(shape).contiguous() for part in (p.total_count, p.probs))
    return torch.binomial(count, probs, generator=generator)


@draw.register
def _(p: Categorical, shape: Size, generator: Generator | None) -> Tensor:
    """The first level whose cumulative probability exceeds a uniform number."""
    cumulative = p.probs.cumsum(dim=-1)[..., :-1]
    return (uniform(p.probs, shape, generator)[..., None] > cumulative).sum(dim=-1).to(p.probs.dtype)


def rounded(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Draws in another dtype, of which none becomes 0, 1 or infinite by rounding, where a density may have no value."""
    info = torch.finfo(dtype)
    near = y.to(dtype).clamp(info.min, info.max)
    near = near.masked_fill((near == 0) & (y != 0), info.tiny)
    return near.masked_fill((near == 1) & (y != 1), 1 - info.eps / 2)


def gaussian(like: Tensor, shape: Size, generator: Generator | None) -> Tensor:
    """Standard normal numbers of the dtype and device of ``like``."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def uniform(like: Tensor, shape: Size, generator: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1) of the dtype and device of ``like``."""
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)


def poisson(rate: Tensor, generator: Generator | None) -> Tensor:
    """Poisson numbers; a rate of which float64 cannot count stands for its draw, from which it differs by 1e-8 of itself."""
    drawn = torch.poisson(rate.clamp_max(COUNTABLE), generator=generator)
    return drawn.where(rate < COUNTABLE, rate.round())


def gamma(concentration: Tensor, generator: Generator | None) -> Tensor:
    """Standard gamma numbers."""
    return torch._standard_gamma(concentration, generator=generator)
