"""Probabilities of counts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Distribution, constraints
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson
from torch.nn.functional import log_softmax, logsigmoid
from typing_extensions import override

from vae.distributions import Columns
from vae.draws import draw, uniform
from vae.likelihoods import moments
from vae.likelihoods.base import Likelihood, Positive, require_levels, require_positive
from vae.supports import COUNT, whole_numbers

MIN_DISPERSION = 1e-3  # floor of the concentration r of negative binomials: the variance is mean + mean^2 / r


class Binomial(Likelihood):
    """Binomial(trials, sigmoid(f_w(z))).

    Args:
        data_dim: Number of columns D.
        trials: The largest value.

    Raises:
        ValueError: If it is not positive.
    """

    measure = "probability"
    trials: Tensor

    def __init__(self, data_dim: int, trials: int) -> None:
        super().__init__(data_dim)
        require_levels("trials", trials, 1)
        self.support = whole_numbers(trials + 1)
        self.register_buffer("trials", torch.tensor(float(trials)))

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TorchBinomial(self.trials, logits=f, validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return moments.logit(y.nanmean(dim=0) / self.trials.to(y))


class Poisson(Likelihood):
    """Poisson(exp(f_w(z)))."""

    support = COUNT
    measure = "probability"

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(TorchPoisson(f.exp(), validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return moments.log_mean(y)


class NegativeBinomial(Likelihood):
    """Counts of mean exp(f_w(z)) and variance mean + mean^2 / r, with r learned for each column."""

    support = COUNT
    measure = "probability"

    def __init__(self, data_dim: int) -> None:
        super().__init__(data_dim)
        self.concentration = Positive("concentration", data_dim, MIN_DISPERSION)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(_negative_binomial(f, self.concentration()))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return moments.log_mean(y)


class ZeroInflatedNegativeBinomial(Likelihood):
    """A zero with probability sigmoid(f_w(z)_2), else a negative binomial; of sequencing counts, with a library size.

    Lopez et al. (2018), "Deep generative modeling for single-cell transcriptomics", eq. 1-6, with the library size observed.

    Args:
        data_dim: Number of columns D.
        library: If given, the mean of a row's column d is its library size, the sum of its values, times softmax(f_w(z)_1)_d:
            log p is then given the library size. New rows are generated with this one, a typical total.
            By default the means are exp(f_w(z)_1).

    Raises:
        ValueError: If ``library`` is not positive.
    """

    features = 2
    support = COUNT
    measure = "probability"
    library: Tensor | None

    def __init__(self, data_dim: int, library: float | None = None) -> None:
        super().__init__(data_dim)
        if library is not None:
            require_positive("library", library)
        self.concentration = Positive("concentration", data_dim, MIN_DISPERSION)
        self.register_buffer("library", None if library is None else torch.tensor(float(library)))

    @override
    def forward(self, f: Tensor) -> Columns:
        log_mean, zero = self.split(f)
        if self.library is None:
            return Columns(ZeroInflated(_negative_binomial(log_mean, self.concentration()), zero))
        return Columns(LibrarySized(log_softmax(log_mean, dim=-1), self.concentration(), zero, self.library))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        log_mean, zero = moments.zero_inflation(y)
        return torch.cat([log_mean, zero.logit()])


class ZeroInflated(Distribution):
    """0 with probability sigmoid(``zero``), else from ``counts``."""

    arg_constraints = {"zero": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, counts: TorchNegativeBinomial, zero: Tensor) -> None:
        self.counts, self.zero = counts, zero
        super().__init__(counts.batch_shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        counted = logsigmoid(-self.zero) + self.counts.log_prob(value)
        return torch.logaddexp(logsigmoid(self.zero), counted).where(value == 0, counted)

    @property
    def mean(self) -> Tensor:
        """P(not inflated) E[counts]."""
        return (-self.zero).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """E[y^2] - E[y]^2."""
        return (-self.zero).sigmoid() * (self.counts.variance + self.counts.mean.square()) - self.mean.square()


class LibrarySized(Distribution):
    """`ZeroInflated` whose means are shares of a library size: in ``log_prob``, of the row's own.

    Args:
        log_shares: Of the columns, shape (..., D).
        concentration: r, shape (D,).
        zero: Logits of the inflated zeros, shape (..., D).
        library: The library size of draws.
    """

    arg_constraints = {"zero": constraints.real}  # noqa: RUF012  # as torch declares it

    def __init__(self, log_shares: Tensor, concentration: Tensor, zero: Tensor, library: Tensor) -> None:
        self.log_shares, self.concentration, self.zero, self.library = log_shares, concentration, zero, library
        super().__init__(zero.shape, validate_args=False)

    def given(self, library: Tensor) -> ZeroInflated:
        """For rows of this library size."""
        log_mean = self.log_shares + library.clamp_min(1).log()
        return ZeroInflated(_negative_binomial(log_mean, self.concentration), self.zero)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        return self.given(value.sum(dim=-1, keepdim=True)).log_prob(value)

    @property
    def mean(self) -> Tensor:
        """For the typical library size."""
        return self.given(self.library).mean

    @property
    def variance(self) -> Tensor:
        """For the typical library size."""
        return self.given(self.library).variance


@draw.register
def _(p: ZeroInflated, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    counted = uniform(p.zero, shape, generator) >= p.zero.sigmoid()
    return draw(p.counts, shape, generator) * counted


@draw.register
def _(p: LibrarySized, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    return draw(p.given(p.library), shape, generator)


def _negative_binomial(log_mean: Tensor, concentration: Tensor) -> TorchNegativeBinomial:
    return TorchNegativeBinomial(concentration, logits=log_mean - concentration.log(), validate_args=False)
