"""Densities with heavy tails, of positive numbers, and of shares."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions import Distribution, constraints
from torch.distributions import LogNormal as TorchLogNormal
from torch.nn.functional import log_softmax
from typing_extensions import override

from vae.distributions.draws import draw, gamma, gaussian, uniform
from vae.distributions.supports import CLOSED_UNIT, POSITIVE, UNIT
from vae.distributions.vectors import Columns, wide
from vae.likelihoods import starts
from vae.likelihoods.likelihood import LARGEST_LOG, Likelihood, Positive, above, under
from vae.options.registry import ScaleFloor, ShapeFloor, TailFloors

LEAST_MEAN = 1e-35  # of gamma densities to begin with, of which float32 has the inverse
LEAST_CONCENTRATION = 1e-2  # of beta densities, which float32 cannot tell from 0 and 1 below


class StudentT(Likelihood):
    """Student's t around f_w(z), with a scale and degrees of freedom learned for each column.

    Args:
        data_dim: Number of columns D.
        options: `TailFloors`.
    """

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        floors = TailFloors(**options)
        self.scale, self.degrees = Positive(data_dim, floors.min_scale), Positive(data_dim, floors.min_degrees)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(ScaledT(wide(f), self.scale(), self.degrees()), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.nanmedian(dim=0).values  # which outliers do not move


class ScaledT(Distribution):
    """loc + scale t, with t of Student's distribution. What is learned is not yet broadcast: its log Gamma is taken once.

    Args:
        loc: Shape (..., D).
        scale: Shape (D,).
        degrees: Of freedom, shape (D,).
    """

    arg_constraints = {"loc": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, loc: Tensor, scale: Tensor, degrees: Tensor) -> None:
        self.loc, self.scale, self.degrees = loc, scale, degrees
        super().__init__(loc.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """log Gamma((v + 1) / 2) - log Gamma(v / 2) - log(v pi) / 2 - log scale - (v + 1) / 2 log(1 + t^2 / v)."""
        half = (self.degrees + 1) / 2
        peak = half.lgamma() - (self.degrees / 2).lgamma() - (self.degrees * math.pi).log() / 2 - self.scale.log()
        return peak - half * (((value - self.loc) / self.scale).square() / self.degrees).log1p()

    @property
    def mean(self) -> Tensor:
        """The location, or NaN up to one degree of freedom."""
        return self.loc.masked_fill(self.degrees <= 1, torch.nan)

    @property
    def variance(self) -> Tensor:
        """scale^2 v / (v - 2); infinite up to two degrees of freedom, NaN up to one."""
        finite = self.scale.square() * self.degrees / (self.degrees - 2).clamp_min(0)
        return finite.masked_fill(self.degrees <= 1, torch.nan).expand_as(self.loc)


@draw.register
def _(p: ScaledT, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """A normal over the root of a gamma of mean 1."""
    half = (p.degrees / 2).expand(shape)
    return p.loc + p.scale * gaussian(p.loc, shape, generator) / (gamma(half, generator) / half).sqrt()


class LogNormal(Likelihood):
    """log y ~ N(f_w(z), diag(scale^2)) for y > 0, with a scale learned for each column.

    Args:
        data_dim: Number of columns D.
        options: `ScaleFloor`.
    """

    support = POSITIVE

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        self.scale = Positive(data_dim, ScaleFloor(**options).min_scale)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TorchLogNormal(wide(f), self.scale(), validate_args=False), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.log().nanmean(dim=0)


class Gamma(Likelihood):
    """Positive numbers of mean exp(f_w(z)) and variance mean^2 / a, with the shape a learned for each column.

    Unlike those of `LogNormal` its tails are exponential; a = 1 is the exponential distribution.

    Args:
        data_dim: Number of columns D.
        options: `ShapeFloor`.
    """

    support = POSITIVE

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        self.shape = Positive(data_dim, ShapeFloor(**options).min_shape)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(GammaOfMean(wide(f, LARGEST_LOG), self.shape()), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return starts.log_mean(y, LEAST_MEAN)


class GammaOfMean(Distribution):
    """Gamma by the logarithm f of its mean: log p(y) = a log a - log Gamma(a) - a f + (a - 1) log y - a y e^-f.

    Args:
        log_mean: Shape (..., D).
        concentration: a, shape (D,), which is not yet broadcast: its log Gamma is taken once.
    """

    arg_constraints = {"log_mean": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, log_mean: Tensor, concentration: Tensor) -> None:
        self.log_mean, self.concentration = log_mean, concentration
        super().__init__(log_mean.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        a, of_value = self.concentration, value.log()
        relative = of_value - self.log_mean
        return (a * a.log() - a.lgamma()) + a * (relative - relative.exp()) - of_value

    @property
    def mean(self) -> Tensor:
        """The mean e^f."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance mean^2 / a."""
        return self.mean.square() / self.concentration


@draw.register
def _(p: GammaOfMean, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """Kept above 0, which a small shape would reach by rounding."""
    drawn = gamma(p.concentration.expand(shape), generator) / p.concentration * p.mean
    return drawn.clamp_min(torch.finfo(drawn.dtype).tiny)


class Beta(Likelihood):
    """Beta(a, b) of shares strictly between 0 and 1, with both concentrations from the network."""

    features = 2
    support = UNIT

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(_beta(*self.split(wide(f))), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return torch.cat([under(LEAST_CONCENTRATION, part) for part in starts.concentrations(y)])


class ZeroOneInflatedBeta(Likelihood):
    """0, 1, or a beta-distributed share between: P(0), P(1) and the weight of the beta by softmax (Ospina and Ferrari 2010).

    Its log p is a log probability at 0 and at 1, and a log density between.
    """

    features = 5
    support = CLOSED_UNIT
    measure = "both"

    @override
    def forward(self, f: Tensor) -> Columns:
        a, b, *logits = self.split(wide(f))
        return Columns(Inflated(_beta(a, b), torch.stack(logits, dim=-1)), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        inside = (y > 0) & (y < 1)
        shares = [starts.share(part, y).clamp_min(starts.LEAST) for part in (y <= 0, y >= 1, inside)]
        between = starts.concentrations(y.masked_fill(~inside, torch.nan))
        return torch.cat([*(under(LEAST_CONCENTRATION, part) for part in between), *(part.log() for part in shares)])


class Inflated(Distribution):
    """A mixture of the points 0 and 1 and a density between.

    Args:
        between: The density, of batch shape (..., D).
        logits: Of 0, of 1, and of the density, shape (..., D, 3).
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012  # as torch declares it

    def __init__(self, between: Distribution, logits: Tensor) -> None:
        self.between, self.logits = between, log_softmax(logits, dim=-1)
        super().__init__(between.batch_shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        zero, unity, share = self.logits.unbind(dim=-1)
        inside = (value > 0) & (value < 1)
        density = share + self.between.log_prob(value.where(inside, 0.5))
        return density.where(inside, zero.where(value <= 0, unity))

    @property
    def mean(self) -> Tensor:
        """The mean P(1) + P(between) E[between]."""
        _, unity, share = self.logits.exp().unbind(dim=-1)
        return unity + share * self.between.mean

    @property
    def variance(self) -> Tensor:
        """The variance E[y^2] - E[y]^2."""
        _, unity, share = self.logits.exp().unbind(dim=-1)
        return unity + share * (self.between.variance + self.between.mean.square()) - self.mean.square()


@draw.register
def _(p: Inflated, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    zero, unity, _ = p.logits.exp().unbind(dim=-1)
    which, between = uniform(zero, shape, generator), draw(p.between, shape, generator)
    return between.where(which >= zero + unity, (which >= zero).to(between.dtype))


def _beta(a: Tensor, b: Tensor) -> TorchBeta:
    return TorchBeta(above(LEAST_CONCENTRATION, a), above(LEAST_CONCENTRATION, b), validate_args=False)
