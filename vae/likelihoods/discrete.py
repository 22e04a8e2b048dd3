"""Probabilities of classes, of ordered levels, and of counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, constraints
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson
from torch.nn.functional import log_softmax, logsigmoid, softplus
from typing_extensions import override

from vae.distributions import Columns, IndependentBernoulli
from vae.draws import draw, uniform
from vae.likelihoods import moments
from vae.likelihoods.base import UNIT_SOFTPLUS, Likelihood, Positive, of_columns, require_levels, require_positive
from vae.supports import BINARY, COUNT, whole_numbers

MIN_DISPERSION = 1e-3  # floor of the concentration r of negative binomials: the variance is mean + mean^2 / r


class Bernoulli(Likelihood):
    """prod_d Bernoulli(y_d; sigmoid(f_w(z)_d)) for data in {0, 1}."""

    support = BINARY
    measure = "probability"

    @override
    def forward(self, f: Tensor) -> IndependentBernoulli:
        return IndependentBernoulli(f)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return moments.logit(y.nanmean(dim=0))


class Categorical(Likelihood):
    """Classes 0, ..., levels - 1 by softmax of f_w(z), for columns that all have so many.

    Args:
        data_dim: Number of columns D.
        levels: Number of classes.

    Raises:
        ValueError: If there are fewer than two.
    """

    measure = "probability"

    def __init__(self, data_dim: int, levels: int) -> None:
        super().__init__(data_dim)
        require_levels("levels", levels)
        self.features, self.support = levels, whole_numbers(levels)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(Levels(logits=torch.stack(self.split(f), dim=-1), validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        least = moments.LEAST / self.features
        return moments.frequencies(y, self.features).clamp_min(least).log().T.flatten()


class Ordinal(Likelihood):
    """Ordered levels 0, ..., levels - 1: P(y <= j) = sigmoid(threshold_j - f_w(z)), with rising thresholds learned per column.

    The cumulative logit model of McCullagh (1980), "Regression models for ordinal data".

    Args:
        data_dim: Number of columns D.
        levels: Number of levels.

    Raises:
        ValueError: If there are fewer than two.
    """

    measure = "probability"

    def __init__(self, data_dim: int, levels: int) -> None:
        super().__init__(data_dim)
        require_levels("levels", levels)
        self.support = whole_numbers(levels)
        steps = torch.full((data_dim, levels - 1), UNIT_SOFTPLUS)
        steps[:, 0] = -(levels - 2) / 2  # the thresholds lie around 0
        self.steps = nn.Parameter(steps)

    @property
    def thresholds(self) -> Tensor:
        """Shape (D, levels - 1), rising."""
        return torch.cat([self.steps[:, :1], softplus(self.steps[:, 1:])], dim=-1).cumsum(dim=-1)

    @override
    def forward(self, f: Tensor) -> Columns:
        above = self.thresholds - f[..., None]
        below = torch.cat([above.new_full((*above.shape[:-1], 1), -torch.inf), above], dim=-1)
        above = torch.cat([above, above.new_full((*above.shape[:-1], 1), torch.inf)], dim=-1)
        return Columns(Levels(logits=log_sigmoid_difference(above, below), validate_args=False))

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        thresholds = of_columns(self.thresholds, y)
        cumulative = moments.frequencies(y, thresholds.shape[1] + 1).cumsum(dim=1)
        return moments.location(thresholds, cumulative[:, :-1])


class Levels(TorchCategorical):
    """torch's, with the mean and the variance of the level."""

    @property
    def mean(self) -> Tensor:
        """Sum of P(j) j."""
        return (self.probs * self._levels).sum(dim=-1)

    @property
    def variance(self) -> Tensor:
        """Sum of P(j) j^2 - mean^2."""
        return (self.probs * self._levels.square()).sum(dim=-1) - self.mean.square()

    @property
    def _levels(self) -> Tensor:
        return torch.arange(self.probs.shape[-1], device=self.probs.device, dtype=self.probs.dtype)


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


def log_sigmoid_difference(above: Tensor, below: Tensor) -> Tensor:
    """log(sigmoid(above) - sigmoid(below)) for above > below, without cancellation.

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)).
    """
    return logsigmoid(above) + logsigmoid(-below) + torch.log(-torch.expm1(below - above))


def _negative_binomial(log_mean: Tensor, concentration: Tensor) -> TorchNegativeBinomial:
    return TorchNegativeBinomial(concentration, logits=log_mean - concentration.log(), validate_args=False)
