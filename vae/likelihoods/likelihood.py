"""What every likelihood offers, and how one learns a positive number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae.distributions.supports import REAL, Support
from vae.distributions.vectors import VectorDistribution, wide

Measure = Literal["density", "probability", "both"]
UNIT_SOFTPLUS = 0.5413248546129181  # softplus of it is 1
LEAST_EXCESS = 1e-3  # over a floor, at first
LARGEST_OUTPUT = 1e30  # that a network begins with
LARGEST_LOG = 88.0  # of a mean, as float32 has it


class Likelihood(nn.Module, ABC):
    """p(y|z) of D columns.

    Args:
        data_dim: D.

    Attributes:
        features: Network outputs needed per data column.
        support: The values that a column may take.
        measure: Whether p(y|z) is a density, a probability, or a probability of some values and a density of others; log p of
            one is not comparable with log p of another.
        given_total: Whether p(y|z) is that of the columns given their sum, and so depends on all of them; a missing value is
            then left out by the distribution itself.
    """

    features: int = 1
    given_total: bool = False
    support: Support = REAL
    measure: Measure = "density"

    def __init__(self, data_dim: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, f: Tensor) -> VectorDistribution:
        """p(y|z) from the network output ``f`` of shape (..., features * D)."""

    @torch.no_grad()
    def initial_outputs(self, y: Tensor) -> Tensor:
        """Outputs (features * D,) whose distribution is near that of each column of rows y (N, D), by moments.

        Learned parameters stay as they are. Missing values do not count; a column that has no other gets 0.
        """
        outputs = self._by_moments(y)
        return outputs.nan_to_num(0.0).clamp(-LARGEST_OUTPUT, LARGEST_OUTPUT)

    @abstractmethod
    def _by_moments(self, y: Tensor) -> Tensor:
        """Outputs (features * D,); anything for a column without values, and maybe infinite."""

    def outputs(self, data_dim: int) -> int:
        """The number of network outputs needed for all columns."""
        return self.features * data_dim

    def allows(self, y: Tensor) -> Tensor:
        """Whether values y (..., D) may be what the likelihood is for, elementwise."""
        allowed: Tensor = self.support.contains(y)
        return allowed

    def of(self, column: int) -> Likelihood:
        """The likelihood of one column."""
        return self

    def totals(self, data_dim: int) -> list[list[int]]:
        """The columns, for each total that is given."""
        return [list(range(data_dim))] if self.given_total else []

    def split(self, f: Tensor) -> tuple[Tensor, ...]:
        """The network output as ``features`` tensors of shape (..., D)."""
        return f.chunk(self.features, dim=-1)


class Positive(nn.Module):
    """A learned number for each column, above a floor; 1 above it at first."""

    def __init__(self, data_dim: int, floor: float) -> None:
        super().__init__()
        self.floor, self.raw = floor, nn.Parameter(torch.full((data_dim,), UNIT_SOFTPLUS))

    def forward(self) -> Tensor:
        """The numbers, shape (D,), `wide`."""
        return above(self.floor, wide(self.raw))


def above(floor: float, f: Tensor) -> Tensor:
    """Real numbers mapped to numbers greater than ``floor``."""
    return floor + softplus(f)


def under(floor: float, value: Tensor) -> Tensor:
    """The inverse of `above`; a value that is no greater than the floor becomes one that is, a little."""
    excess = (value - floor).clamp_min(LEAST_EXCESS)
    return excess + (-(-excess).expm1()).log()


def of_columns(parameter: Tensor, y: Tensor) -> Tensor:
    """A likelihood's numbers (D, ...) for each column of y; where those are pooled, as pixels are, their mean for all."""
    parameter = parameter.to(y)
    return parameter if len(parameter) == y.shape[1] else parameter.mean(dim=0, keepdim=True)
