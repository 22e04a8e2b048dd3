"""Probabilities of two classes, of several, and of ordered levels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical as TorchCategorical
from torch.nn.functional import logsigmoid, pad, softplus
from typing_extensions import override

from vae.distributions.bernoulli import IndependentBernoulli
from vae.distributions.supports import BINARY, whole_numbers
from vae.distributions.vectors import Columns, wide
from vae.likelihoods import starts
from vae.likelihoods.likelihood import UNIT_SOFTPLUS, Likelihood, of_columns
from vae.options.registry import ClassCount


class Bernoulli(Likelihood):
    """prod_d Bernoulli(y_d; sigmoid(f_w(z)_d)) for data in {0, 1}."""

    support = BINARY
    measure = "probability"

    @override
    def forward(self, f: Tensor) -> IndependentBernoulli:
        return IndependentBernoulli(f)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return starts.logit(y.nanmean(dim=0))


class Categorical(Likelihood):
    """Classes 0, ..., levels - 1 by softmax of f_w(z), for columns that all have so many.

    Args:
        data_dim: Number of columns D.
        options: `ClassCount`.
    """

    measure = "probability"

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        levels = ClassCount(**options).levels
        self.features, self.support = levels, whole_numbers(levels)

    @override
    def forward(self, f: Tensor) -> Columns:
        return Columns(Levels(logits=torch.stack(self.split(wide(f)), dim=-1), validate_args=False), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        least = starts.LEAST / self.features
        return starts.frequencies(y, self.features).clamp_min(least).log().T.flatten()


class Ordinal(Likelihood):
    """Ordered levels 0, ..., levels - 1: P(y <= j) = sigmoid(threshold_j - f_w(z)), with rising thresholds learned per column.

    The cumulative logit model of McCullagh (1980), "Regression models for ordinal data".

    Args:
        data_dim: Number of columns D.
        options: `ClassCount`.
    """

    measure = "probability"

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        levels = ClassCount(**options).levels
        self.support = whole_numbers(levels)
        steps = torch.full((data_dim, levels - 1), UNIT_SOFTPLUS)
        steps[:, 0] = -(levels - 2) / 2  # the thresholds lie around 0
        self.steps = nn.Parameter(steps)

    @property
    def thresholds(self) -> Tensor:
        """The thresholds of each column, rising, shape (D, levels - 1)."""
        steps = wide(self.steps)
        return torch.cat([steps[:, :1], softplus(steps[:, 1:])], dim=-1).cumsum(dim=-1)

    @override
    def forward(self, f: Tensor) -> Columns:
        """1 - e^-softplus(s) is sigmoid(s), so that no level's probability is 0, however near its thresholds are."""
        beyond = self.thresholds - wide(f)[..., None]
        between = logsigmoid(wide(self.steps)[:, 1:])
        logits = logsigmoid(pad(beyond, (0, 1), value=torch.inf)) + logsigmoid(-pad(beyond, (1, 0), value=-torch.inf))
        return Columns(Levels(logits=logits + pad(between, (1, 1)), validate_args=False), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        thresholds = of_columns(self.thresholds, y)
        cumulative = starts.frequencies(y, thresholds.shape[1] + 1).cumsum(dim=1)
        return starts.location(thresholds, cumulative[:, :-1])


class Levels(TorchCategorical):
    """torch's, with the mean and the variance of the level."""

    @property
    def mean(self) -> Tensor:
        """The mean level, the sum of P(j) j."""
        return (self.probs * self._levels).sum(dim=-1)

    @property
    def variance(self) -> Tensor:
        """The variance of the level, the sum of P(j) j^2 minus mean^2."""
        return (self.probs * self._levels.square()).sum(dim=-1) - self.mean.square()

    @property
    def _levels(self) -> Tensor:
        return torch.arange(self.probs.shape[-1], device=self.probs.device, dtype=self.probs.dtype)
