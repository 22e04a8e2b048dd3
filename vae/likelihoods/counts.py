"""Probabilities of counts."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid, softplus
from typing_extensions import override

from vae.distributions.draws import draw, gamma, poisson, uniform
from vae.distributions.supports import COUNT, whole_numbers
from vae.distributions.vectors import Columns, wide
from vae.likelihoods import starts
from vae.likelihoods.likelihood import LARGEST_LOG, Likelihood, Positive
from vae.options.registry import TrialCount

LOOKED_UP = 2**13  # counts whose log factorials are known
MIN_DISPERSION = 1e-3  # floor of the concentration r of negative binomials: the variance is mean + mean^2 / r


class Binomial(Likelihood):
    """Binomial(trials, sigmoid(f_w(z))).

    Args:
        data_dim: Number of columns D.
        options: `TrialCount`.
    """

    measure = "probability"
    trials: Tensor

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        trials = TrialCount(**options).trials
        self.support = whole_numbers(trials + 1)
        self.register_buffer("trials", torch.tensor(float(trials)))

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TorchBinomial(wide(self.trials), logits=wide(f), validate_args=False), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return starts.logit(y.nanmean(dim=0) / self.trials.to(y))


class Poisson(Likelihood):
    """Poisson(exp(f_w(z)))."""

    support = COUNT
    measure = "probability"

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(LogRate(wide(f, LARGEST_LOG)), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return starts.log_mean(y)


class NegativeBinomial(Likelihood):
    """Counts of mean exp(f_w(z)) and variance mean + mean^2 / r, with r learned for each column."""

    support = COUNT
    measure = "probability"

    def __init__(self, data_dim: int) -> None:
        super().__init__(data_dim)
        self.concentration = Positive(data_dim, MIN_DISPERSION)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(GammaPoisson(wide(f, LARGEST_LOG), self.concentration()), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return starts.log_mean(y)


class ZeroInflatedNegativeBinomial(Likelihood):
    """A zero with probability sigmoid(f_w(z)_2), else a negative binomial of mean exp(f_w(z)_1).

    Lopez et al. (2018), "Deep generative modeling for single-cell transcriptomics", eq. 1-6, without a library size: for
    counts whose total is an accident there is `vae.likelihoods.DirichletMultinomial`.
    """

    features = 2
    support = COUNT
    measure = "probability"

    def __init__(self, data_dim: int) -> None:
        super().__init__(data_dim)
        self.concentration = Positive(data_dim, MIN_DISPERSION)

    @override
    def forward(self, f: Tensor) -> Columns:
        log_mean, zero = self.split(f)
        counts = GammaPoisson(wide(log_mean, LARGEST_LOG), self.concentration())
        return Columns(ZeroInflated(counts, wide(zero)), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        log_mean, zero = starts.zero_inflation(y)
        return torch.cat([log_mean, zero.logit()])


class LogRate(Distribution):
    """Poisson counts, by the logarithm f of their rate: log p(y) = y f - e^f - log y!."""

    arg_constraints = {"f": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, f: Tensor) -> None:
        self.f = f
        super().__init__(f.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.f - self.f.exp() - log_factorial(value)

    @property
    def mean(self) -> Tensor:
        """The mean, which is the rate."""
        return self.f.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, which is the rate."""
        return self.f.exp()


class GammaPoisson(Distribution):
    """Poisson counts whose rate is a gamma of shape r, which are negative binomial.

    log p(y) = y x - (r + y) log(1 + e^x) + log Gamma(y + r) - log Gamma(r) - log y! with x = log(mean / r).

    Args:
        log_mean: Shape (..., D).
        concentration: r, shape (D,), which is not yet broadcast: its log Gamma is taken once.
    """

    arg_constraints = {"log_mean": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, log_mean: Tensor, concentration: Tensor) -> None:
        self.log_mean, self.concentration = log_mean, concentration
        super().__init__(log_mean.shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        x, total = self.log_mean - self.concentration.log(), value + self.concentration
        of_values = total.lgamma() - log_factorial(value) - self.concentration.lgamma()
        return value * x - total * softplus(x, threshold=40) + of_values  # beyond, e^-40 is lost in float64 too

    @property
    def mean(self) -> Tensor:
        """The mean, shape (..., D)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance mean + mean^2 / r."""
        return self.mean + self.mean.square() / self.concentration


class ZeroInflated(Distribution):
    """0 with probability sigmoid(``zero``), else from ``counts``."""

    arg_constraints = {"zero": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, counts: GammaPoisson, zero: Tensor) -> None:
        self.counts, self.zero = counts, zero
        super().__init__(counts.batch_shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """1 - P(inflated) times P(counted), or for 0 times that and the odds of an inflated one."""
        counted = self.counts.log_prob(value)
        return logsigmoid(-self.zero) + torch.logaddexp(self.zero, counted).where(value == 0, counted)

    @property
    def mean(self) -> Tensor:
        """The mean P(not inflated) E[counts]."""
        return (-self.zero).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """The variance E[y^2] - E[y]^2."""
        return (-self.zero).sigmoid() * (self.counts.variance + self.counts.mean.square()) - self.mean.square()


def log_factorial(y: Tensor) -> Tensor:
    """log y!; of small counts it is looked up, as log Gamma in float64 takes as long as all else that a Poisson needs."""
    if y.device.type != "cpu" or not y.numel() or y.amax() >= LOOKED_UP:
        return (y + 1).lgamma()
    return _log_factorials()[y.long()].to(y.dtype)


@cache
def _log_factorials() -> Tensor:
    return torch.arange(1, LOOKED_UP + 1, dtype=torch.float64).lgamma()


@draw.register
def _(p: LogRate, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    return poisson(p.mean.expand(shape), generator)


@draw.register
def _(p: GammaPoisson, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    shares = gamma(p.concentration.expand(shape), generator) / p.concentration
    return poisson(shares * p.mean, generator)


@draw.register
def _(p: ZeroInflated, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    counted = uniform(p.zero, shape, generator) >= p.zero.sigmoid()
    return draw(p.counts, shape, generator) * counted
