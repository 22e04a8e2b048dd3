"""Densities of real numbers that are Gaussian given the latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae.distributions.vectors import DiagonalNormal
from vae.likelihoods import starts
from vae.likelihoods.likelihood import Likelihood, above, under
from vae.options.registry import FixedVariance, VarianceFloor


class Gaussian(Likelihood):
    """N(y; f_w(z), variance * I), with the variance fixed: the lecture's likelihood.

    Args:
        data_dim: Number of columns D.
        options: `FixedVariance`: sigma_y^2.
    """

    variance: Tensor

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        self.register_buffer("variance", torch.tensor(FixedVariance(**options).variance))

    @override
    def forward(self, f: Tensor) -> DiagonalNormal:
        return DiagonalNormal(f, self.variance.sqrt())

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.nanmean(dim=0)


class LearnedGaussian(Likelihood):
    """N(y; f_w(z), variance * I), with one variance learned for all columns: min_variance + exp(log_excess).

    Args:
        data_dim: Number of columns D.
        options: `VarianceFloor`.
    """

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        self.min_variance = VarianceFloor(**options).min_variance
        self.log_excess = nn.Parameter(torch.zeros(self._variances(data_dim)))

    @staticmethod
    def _variances(data_dim: int) -> int:
        return 1

    @property
    def variance(self) -> Tensor:
        """The variance sigma_y^2, of shape (1,) or (D,)."""
        return self.min_variance + self.log_excess.exp()

    @override
    def forward(self, f: Tensor) -> DiagonalNormal:
        return DiagonalNormal(f, self.variance.sqrt())

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.nanmean(dim=0)


class PerDimensionGaussian(LearnedGaussian):
    """N(y; f_w(z), diag(variance)), with one learned variance per column."""

    @staticmethod
    def _variances(data_dim: int) -> int:
        return data_dim


class HeteroscedasticGaussian(Likelihood):
    """N(y; f_w(z)_1, diag(variance)) with a variance that depends on z: min_variance + softplus(f_w(z)_2).

    Args:
        data_dim: Number of columns D.
        options: `VarianceFloor`.
    """

    features = 2

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        self.min_variance = VarianceFloor(**options).min_variance

    @override
    def forward(self, f: Tensor) -> DiagonalNormal:
        mean, raw = self.split(f)
        return DiagonalNormal(mean, above(self.min_variance, raw).sqrt())

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        spread = starts.variance(y).clamp_min(starts.LEAST_VARIANCE)
        return torch.cat([y.nanmean(dim=0), under(self.min_variance, spread)])
