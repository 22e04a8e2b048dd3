"""Grey values: as 8-bit integers, or as shares of white."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid
from typing_extensions import override

from vae.distributions.draws import draw, uniform
from vae.distributions.supports import CLOSED_UNIT, whole_numbers
from vae.distributions.vectors import Columns, wide
from vae.likelihoods import starts
from vae.likelihoods.likelihood import Likelihood, Positive, of_columns
from vae.options.registry import PixelBins

NEAR_ZERO = 0.02  # logits whose series, cut off, is exact in float64
LEAST_SIZE = 1e-30  # of a logit, whose density is uniform


class DiscretizedLogistic(Likelihood):
    """The probability that a logistic variable falls into a pixel's bin; the outer bins have the tails.

    Kingma et al. (2016), "Improved variational inference with inverse autoregressive flow", eq. 14 with a bin of 1 / levels.

    Args:
        data_dim: Number of columns D.
        options: `PixelBins`. f_w(z) is in units of ``levels``, centred; so is the scale, which is learned for each column.
    """

    measure = "probability"

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        bins = PixelBins(**options)
        self.levels, self.support = bins.levels, whole_numbers(bins.levels)
        self.scale = Positive(data_dim, bins.min_scale)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(BinnedLogistic(wide(f), self.scale(), self.levels), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        scale = of_columns(self.scale(), y)
        edges = torch.arange(1, self.levels).to(y) / self.levels - 0.5
        cumulative = starts.frequencies(y, self.levels).cumsum(dim=1)
        return scale * starts.location(edges / scale[:, None], cumulative[:, :-1])


class BinnedLogistic(Distribution):
    """A logistic variable around ``loc``, rounded down to one of ``levels`` bins of width 1 / levels that begin at -1/2."""

    arg_constraints = {"loc": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, loc: Tensor, scale: Tensor, levels: int) -> None:
        self.loc, self.scale, self.levels = loc, scale, levels
        super().__init__(loc.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """sigmoid(high) - sigmoid(low) = sigmoid(high) sigmoid(-low) (1 - exp(low - high)), without cancellation."""
        low = (value / self.levels - 0.5 - self.loc) / self.scale
        width, first, last = 1 / (self.levels * self.scale), value <= 0, value >= self.levels - 1
        parts = logsigmoid(low + width).masked_fill(last, 0), logsigmoid(-low).masked_fill(first, 0)
        return parts[0] + parts[1] + (-(-width).expm1()).log().masked_fill(first | last, 0)

    @property
    def probs(self) -> Tensor:
        """The probabilities of all levels, shape (..., D, levels)."""
        levels = torch.arange(self.levels, device=self.loc.device, dtype=self.loc.dtype)
        parts = BinnedLogistic(self.loc[..., None], self.scale[..., None], self.levels)
        return parts.log_prob(levels.expand(*self.loc.shape, self.levels)).exp()

    @property
    def mean(self) -> Tensor:
        """The mean level, the sum of P(j) j."""
        return self.probs @ torch.arange(self.levels, device=self.loc.device, dtype=self.loc.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance of the level, the sum of P(j) j^2 minus mean^2."""
        return self.probs @ torch.arange(self.levels, device=self.loc.device, dtype=self.loc.dtype).square() - self.mean**2


@draw.register
def _(p: BinnedLogistic, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    logistic = p.loc + p.scale * uniform(p.loc, shape, generator).clamp_min(torch.finfo(p.loc.dtype).tiny).logit()
    return ((logistic + 0.5) * p.levels).floor().clamp(0, p.levels - 1)


class ContinuousBernoulli(Likelihood):
    """A density of shares in [0, 1] proportional to p^y (1 - p)^(1 - y), with logits f_w(z).

    Loaiza-Ganem and Cunningham (2019), "The continuous Bernoulli", eq. 1. Its nats are not comparable with Bernoulli's.
    """

    support = CLOSED_UNIT

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TiltedUniform(wide(f)), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return starts.continuous_logit(y)


class TiltedUniform(Distribution):
    """The uniform density on [0, 1] times e^(f y), normalised: log p(y) = f y - log((e^f - 1) / f).

    torch's `ContinuousBernoulli` keeps f from what float32 calls probability 0 and 1, and is no density beyond.
    """

    arg_constraints = {"f": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, f: Tensor) -> None:
        self.f = f
        super().__init__(f.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """With (e^f - 1) / f = e^max(f, 0) (1 - e^-|f|) / |f|, which nothing cancels in; near 0 by its series."""
        near, size = self._near_zero, self._size
        far = self.f.clamp_min(0) + (-(-size).expm1()).log() - size.log()
        f = self.f.where(near, 0)
        return self.f * value - (f / 2 + f.square() / 24 - f**4 / 2880).where(near, far)

    @property
    def mean(self) -> Tensor:
        """The mean 1 / (1 - e^-f) - 1 / f."""
        f = self.f
        far = (1 / -(-self._size).expm1() - 1 / self._size - 0.5) * f.sign()
        return 0.5 + (f / 12 - f**3 / 720).where(self._near_zero, far)

    @property
    def variance(self) -> Tensor:
        """The variance 1 / f^2 - 1 / (4 sinh^2(f / 2))."""
        size = self._size
        far = 1 / size.square() - 1 / (4 * (size / 2).sinh().square())
        return (1 / 12 - self.f.square() / 240 + self.f**4 / 6048).where(self._near_zero, far)

    def icdf(self, u: Tensor) -> Tensor:
        """y with P(<= y) = u, in [0, 1]: log(1 + u (e^f - 1)) / f; for f > 0 as one minus that of -f and 1 - u."""
        size = self.f.abs().clamp_min(LEAST_SIZE)
        upwards = -(u.where(self.f < 0, 1 - u) * (-size).expm1()).log1p() / size
        return upwards.where(self.f < 0, 1 - upwards).clamp(0, 1)

    @property
    def _near_zero(self) -> Tensor:
        return self.f.abs() < NEAR_ZERO

    @property
    def _size(self) -> Tensor:
        """|f|, or 1 where the series stands for what would be 0 / 0, in the gradient too."""
        return self.f.abs().masked_fill(self._near_zero, 1)


@draw.register
def _(p: TiltedUniform, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    return p.icdf(uniform(p.f, shape, generator))
