"""p(y|z): modules that turn the generative network's output into a distribution over data.

A likelihood is constructed with the data dimension D and its own options, says how many numbers it needs per column
(`features`), over which values it is a density (`support`), and maps (..., features * D) to a distribution over (..., D).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae.distributions import DiagonalNormal, IndependentBernoulli, VectorDistribution


class Likelihood(nn.Module, ABC):
    """What every likelihood offers.

    Attributes:
        features: Network outputs needed per data column.
        support: ``"real"`` for a density over real numbers, ``"binary"`` for a probability over {0, 1}.
    """

    features: ClassVar[int] = 1
    support: ClassVar[str] = "real"

    @abstractmethod
    def forward(self, f: Tensor) -> VectorDistribution:
        """p(y|z) from the network output ``f`` of shape (..., features * D)."""


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
        super().__init__()
        _require_positive("variance", variance)
        self.register_buffer("variance", torch.tensor(float(variance)))

    @override
    def forward(self, f: Tensor) -> DiagonalNormal:
        return DiagonalNormal(f, self.variance.sqrt())


class LearnedGaussian(Likelihood):
    """N(y; f_w(z), variance * I), with one variance learned for all columns: min_variance + exp(log_excess).

    Raises:
        ValueError: If ``min_variance`` is not positive.
    """

    def __init__(self, data_dim: int, min_variance: float = 1e-4) -> None:
        super().__init__()
        _require_positive("min_variance", min_variance)
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


class PerDimensionGaussian(LearnedGaussian):
    """N(y; f_w(z), diag(variance)), with one learned variance per column."""

    @staticmethod
    def _variances(data_dim: int) -> int:
        return data_dim


class Bernoulli(Likelihood):
    """prod_d Bernoulli(y_d; sigmoid(f_w(z)_d)) for data in {0, 1}."""

    support = "binary"

    def __init__(self, data_dim: int) -> None:
        super().__init__()

    @override
    def forward(self, f: Tensor) -> IndependentBernoulli:
        return IndependentBernoulli(f)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0; got {value}")
