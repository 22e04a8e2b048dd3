"""Grey values: as 8-bit integers, or as shares of white."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Distribution, constraints
from typing_extensions import override

from vae.distributions import Columns
from vae.draws import draw, uniform
from vae.likelihoods import moments
from vae.likelihoods.base import Likelihood, Positive, of_columns, require_levels
from vae.likelihoods.classes import log_sigmoid_difference
from vae.supports import CLOSED_UNIT, whole_numbers


class DiscretizedLogistic(Likelihood):
    """The probability that a logistic variable falls into a pixel's bin; the outer bins have the tails.

    Kingma et al. (2016), "Improved variational inference with inverse autoregressive flow", eq. 14 with a bin of 1 / levels.

    Args:
        data_dim: Number of columns D.
        levels: The values are 0, ..., levels - 1; f_w(z) is in units of ``levels``, centred.
        min_scale: Floor of the scale, which is learned for each column, in the same units.

    Raises:
        ValueError: If there are fewer than two levels, or the floor is not positive.
    """

    measure = "probability"

    def __init__(self, data_dim: int, levels: int = 256, min_scale: float = 1e-3) -> None:
        super().__init__(data_dim)
        require_levels("levels", levels)
        self.levels, self.support = levels, whole_numbers(levels)
        self.scale = Positive("min_scale", data_dim, min_scale)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(BinnedLogistic(f, self.scale(), self.levels))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        scale = of_columns(self.scale(), y)
        edges = torch.arange(1, self.levels).to(y) / self.levels - 0.5
        cumulative = moments.frequencies(y, self.levels).cumsum(dim=1)
        return scale * moments.location(edges / scale[:, None], cumulative[:, :-1])


class BinnedLogistic(Distribution):
    """A logistic variable around ``loc``, rounded down to one of ``levels`` bins of width 1 / levels that begin at -1/2."""

    arg_constraints = {"loc": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, loc: Tensor, scale: Tensor, levels: int) -> None:
        self.loc, self.scale, self.levels = loc, scale, levels
        super().__init__(loc.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        low = (value / self.levels - 0.5 - self.loc) / self.scale
        high = low + 1 / (self.levels * self.scale)
        low = low.masked_fill(value <= 0, -torch.inf)
        high = high.masked_fill(value >= self.levels - 1, torch.inf)
        return log_sigmoid_difference(high, low)

    @property
    def probs(self) -> Tensor:
        """Of all levels, shape (..., D, levels)."""
        levels = torch.arange(self.levels, device=self.loc.device, dtype=self.loc.dtype)
        parts = BinnedLogistic(self.loc[..., None], self.scale[..., None], self.levels)
        return parts.log_prob(levels.expand(*self.loc.shape, self.levels)).exp()

    @property
    def mean(self) -> Tensor:
        """Sum of P(j) j."""
        return self.probs @ torch.arange(self.levels, device=self.loc.device, dtype=self.loc.dtype)

    @property
    def variance(self) -> Tensor:
        """Sum of P(j) j^2 - mean^2."""
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
        return Columns(TorchContinuousBernoulli(logits=f, validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return moments.continuous_logit(y)
