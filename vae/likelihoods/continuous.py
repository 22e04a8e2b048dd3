"""Densities with heavy tails, of positive numbers, and of shares."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions import Distribution, constraints
from torch.distributions import Gamma as TorchGamma
from torch.distributions import LogNormal as TorchLogNormal
from torch.distributions import StudentT as TorchStudentT
from torch.nn.functional import log_softmax
from typing_extensions import override

from vae.distributions import Columns
from vae.draws import draw, uniform
from vae.likelihoods import moments
from vae.likelihoods.base import Likelihood, Positive, above, under
from vae.supports import CLOSED_UNIT, POSITIVE, UNIT

LEAST_MEAN = 1e-35  # of gamma densities to begin with, of which float32 has the inverse
LEAST_CONCENTRATION = 1e-2  # of beta densities, which float32 cannot tell from 0 and 1 below


class StudentT(Likelihood):
    """Student's t around f_w(z), with a scale and degrees of freedom learned for each column.

    Args:
        data_dim: Number of columns D.
        min_scale: Floor of the scale, in units of y.
        min_degrees: Floor of the degrees of freedom; above 2 the variance is finite.

    Raises:
        ValueError: If a floor is not positive.
    """

    def __init__(self, data_dim: int, min_scale: float = 1e-2, min_degrees: float = 1.0) -> None:
        super().__init__(data_dim)
        self.scale, self.degrees = Positive("min_scale", data_dim, min_scale), Positive("min_degrees", data_dim, min_degrees)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TorchStudentT(self.degrees(), f, self.scale(), validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.nanmedian(dim=0).values  # which outliers do not move


class LogNormal(Likelihood):
    """log y ~ N(f_w(z), diag(scale^2)) for y > 0, with a scale learned for each column.

    Args:
        data_dim: Number of columns D.
        min_scale: Floor of the scale, of log y.

    Raises:
        ValueError: If the floor is not positive.
    """

    support = POSITIVE

    def __init__(self, data_dim: int, min_scale: float = 1e-2) -> None:
        super().__init__(data_dim)
        self.scale = Positive("min_scale", data_dim, min_scale)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TorchLogNormal(f, self.scale(), validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.log().nanmean(dim=0)


class Gamma(Likelihood):
    """Positive numbers of mean exp(f_w(z)) and variance mean^2 / a, with the shape a learned for each column.

    Unlike those of `LogNormal` its tails are exponential; a = 1 is the exponential distribution.

    Args:
        data_dim: Number of columns D.
        min_shape: Floor of the shape; below 1 the density is unbounded at 0.

    Raises:
        ValueError: If the floor is not positive.
    """

    support = POSITIVE

    def __init__(self, data_dim: int, min_shape: float = 1e-2) -> None:
        super().__init__(data_dim)
        self.shape = Positive("min_shape", data_dim, min_shape)

    @override
    def forward(self, f: Tensor) -> Columns:
        shape = self.shape().expand(f.shape)
        return Columns(TorchGamma(shape, shape * (-f).exp(), validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return moments.log_mean(y, LEAST_MEAN)


class Beta(Likelihood):
    """Beta(a, b) of shares strictly between 0 and 1, with both concentrations from the network."""

    features = 2
    support = UNIT

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(_beta(*self.split(f)))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return torch.cat([under(LEAST_CONCENTRATION, part) for part in moments.concentrations(y)])


class ZeroOneInflatedBeta(Likelihood):
    """0, 1, or a beta-distributed share between: P(0), P(1) and the weight of the beta by softmax (Ospina and Ferrari 2010).

    Its log p is a log probability at 0 and at 1, and a log density between.
    """

    features = 5
    support = CLOSED_UNIT
    measure = "both"

    @override
    def forward(self, f: Tensor) -> Columns:
        a, b, *logits = self.split(f)
        return Columns(Inflated(_beta(a, b), torch.stack(logits, dim=-1)))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        inside = (y > 0) & (y < 1)
        shares = [moments.share(part, y).clamp_min(moments.LEAST) for part in (y <= 0, y >= 1, inside)]
        between = moments.concentrations(y.masked_fill(~inside, torch.nan))
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
        zero, one, share = self.logits.unbind(dim=-1)
        inside = (value > 0) & (value < 1)
        density = share + self.between.log_prob(value.where(inside, 0.5))
        return density.where(inside, zero.where(value <= 0, one))

    @property
    def mean(self) -> Tensor:
        """P(1) + P(between) E[between]."""
        _, one, share = self.logits.exp().unbind(dim=-1)
        return one + share * self.between.mean

    @property
    def variance(self) -> Tensor:
        """E[y^2] - E[y]^2."""
        _, one, share = self.logits.exp().unbind(dim=-1)
        return one + share * (self.between.variance + self.between.mean.square()) - self.mean.square()


@draw.register
def _(p: Inflated, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    zero, one, _ = p.logits.exp().unbind(dim=-1)
    which, between = uniform(zero, shape, generator), draw(p.between, shape, generator)
    return between.where(which >= zero + one, (which >= zero).to(between.dtype))


def _beta(a: Tensor, b: Tensor) -> TorchBeta:
    return TorchBeta(above(LEAST_CONCENTRATION, a), above(LEAST_CONCENTRATION, b), validate_args=False)
