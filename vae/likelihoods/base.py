"""What every likelihood offers, and how one learns a positive number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae.distributions import VectorDistribution
from vae.supports import REAL, Support

Measure = Literal["density", "probability", "both"]
UNIT_SOFTPLUS = 0.5413248546129181  # softplus of it is 1


class Likelihood(nn.Module, ABC):
    """p(y|z) of D columns.

    Args:
        data_dim: D.

    Attributes:
        features: Network outputs needed per data column.
        support: The values that a column may take.
        measure: Whether p(y|z) is a density, a probability, or a probability of some values and a density of others; log p of
            one is not comparable with log p of another.
    """

    features: int = 1
    support: Support = REAL
    measure: Measure = "density"

    def __init__(self, data_dim: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, f: Tensor) -> VectorDistribution:
        """p(y|z) from the network output ``f`` of shape (..., features * D)."""

    def outputs(self, data_dim: int) -> int:
        """Network outputs needed in all."""
        return self.features * data_dim

    def allows(self, y: Tensor) -> Tensor:
        """Whether values y (..., D) may be what the likelihood is for, elementwise."""
        allowed: Tensor = self.support.contains(y)
        return allowed

    def of(self, column: int) -> Likelihood:
        """The likelihood of one column."""
        return self

    def split(self, f: Tensor) -> tuple[Tensor, ...]:
        """The network output as ``features`` tensors of shape (..., D)."""
        return f.chunk(self.features, dim=-1)


class Positive(nn.Module):
    """A learned number for each column, above a floor; 1 above it at first.

    Raises:
        ValueError: If the floor is not positive.
    """

    def __init__(self, name: str, data_dim: int, floor: float) -> None:
        super().__init__()
        require_positive(name, floor)
        self.floor, self.raw = floor, nn.Parameter(torch.full((data_dim,), UNIT_SOFTPLUS))

    def forward(self) -> Tensor:
        """Shape (D,)."""
        return above(self.floor, self.raw)


def above(floor: float, f: Tensor) -> Tensor:
    """Real numbers mapped to numbers greater than ``floor``."""
    return floor + softplus(f)


def require_positive(name: str, value: float) -> None:
    """Refuse an option that is not positive.

    Raises:
        ValueError: Naming the option.
    """
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0; got {value}")


def require_levels(name: str, value: int | None, least: int = 2) -> None:
    """Refuse too small a number of levels.

    Raises:
        ValueError: Naming the option.
    """
    if value is None or value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
