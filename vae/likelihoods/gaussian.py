"""Densities of real numbers that are Gaussian given the latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae.distributions.vectors import DiagonalNormal
from vae.likelihoods import starts
from vae.likelihoods.likelihood import Likelihood, above, require_positive, under


class Gaussian(Likelihood):
    """N(y; f_w(z), variance * I), with the variance fixed: the lecture's likelihood.

    Args:
        data_dim: Number of columns D.
        variance: sigma_y^2, in squared units of y.

    Raises:
        ValueError: If the variance is not positive.
    """

    variance: Tensor

    def __init__(self, data_dim: int, variance: float = 1.0) -> None:
        super().__init__(data_dim)
        require_positive("variance", variance)
        self.register_buffer("variance", torch.tensor(float(variance)))

    @override
    def forward(self, f: Tensor) -> DiagonalNormal:
        return DiagonalNormal(f, self.variance.sqrt())

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return y.nanmean(dim=0)


class LearnedGaussian(Likelihood):
    """N(y; f_w(z), variance * I), with one variance learned for all columns: min_variance + exp(log_excess).

    Raises:
        ValueError: If ``min_variance`` is not positive.
    """

    def __init__(self, data_dim: int, min_variance: float = 1e-4) -> None:
        super().__init__(data_dim)
        require_positive("min_variance", min_variance)
        self.min_variance = min_variance
        self.log_excess = nn.Parameter(torch.zeros(self._variances(data_dim)))

    @staticmethod
    def _variances(data_dim: int) -> int:
        return 1

    @property
    def variance(self) -> Tensor:
        """sigma_y^2, of shape (1,) or (D,)."""
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

    Raises:
        ValueError: If ``min_variance`` is not positive.
    """

    features = 2

    def __init__(self, data_dim: int, min_variance: float = 1e-4) -> None:
        super().__init__(data_dim)
        require_positive("min_variance", min_variance)
        self.min_variance = min_variance

    @override
    def forward(self, f: Tensor) -> DiagonalNormal:
        mean, raw = self.split(f)
        return DiagonalNormal(mean, above(self.min_variance, raw).sqrt())

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        spread = starts.variance(y).clamp_min(starts.LEAST_VARIANCE)
        return torch.cat([y.nanmean(dim=0), under(self.min_variance, spread)])
