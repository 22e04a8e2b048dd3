"""Columns of different kinds, each under a likelihood of its own, some of whose values may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae.distributions.vectors import Shape, VectorDistribution
from vae.errors import OptionError
from vae.likelihoods.likelihood import Likelihood

Build = Callable[[Mapping[str, Any], int], Likelihood]


class Mixed(Likelihood):
    """p(y|z) = prod_d p_d(y_d|z) over the observed columns d.

    A missing value (NaN) contributes nothing, which integrates it out exactly, as columns are independent given z. Whether a
    value is missing must not depend on what it would have been (ignorable missingness, Rubin 1976). Columns that share a total
    which is given count as one: p of the observed ones is given their own total.

    Args:
        data_dim: Number of columns D.
        columns: For each column the name and the options of its likelihood; columns with the same ones share a module.
        build: Makes a likelihood from such options, for so many columns.

    Raises:
        OptionError: If there are not D columns, or one is to be mixed itself.
    """

    order: Tensor

    def __init__(self, data_dim: int, columns: Sequence[Mapping[str, Any]], build: Build) -> None:
        super().__init__(data_dim)
        if len(columns) != data_dim:
            raise OptionError(f"columns must name a likelihood for each of the {data_dim} columns; got {len(columns)}")
        if any(options["name"] == "mixed" for options in columns):
            raise OptionError("mixed has no mixed columns; name a likelihood of one column for each")
        distinct = [options for d, options in enumerate(columns) if options not in columns[:d]]
        groups = [(options, [d for d, other in enumerate(columns) if other == options]) for options in distinct]
        self.parts = nn.ModuleList(build(options, len(members)) for options, members in groups)
        self.widths = [part.outputs(len(members)) for part, (_, members) in zip(self._likelihoods, groups, strict=True)]
        for number, (_, members) in enumerate(groups):
            self.register_buffer(f"members{number}", torch.tensor(members), persistent=False)
        measures = {part.measure for part in self._likelihoods}
        self.measure = measures.pop() if len(measures) == 1 else "both"
        self.given_total = any(part.given_total for part in self._likelihoods)
        order = torch.tensor([d for _, members in groups for d in members]).argsort()
        self.register_buffer("order", order, persistent=False)

    @override
    def outputs(self, data_dim: int) -> int:
        return sum(self.widths)

    @override
    def forward(self, f: Tensor) -> MixedColumns:
        parts = zip(self._likelihoods, f.split(self.widths, dim=-1), strict=True)
        return MixedColumns([part(output) for part, output in parts], self)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        return torch.cat([part.initial_outputs(values) for part, values in self.parted(y)])

    @override
    def allows(self, y: Tensor) -> Tensor:
        return self.joined([part.allows(values) | values.isnan() for part, values in self.parted(y)])

    @override
    def of(self, column: int) -> Likelihood:
        return next(part for i, part in enumerate(self._likelihoods) if column in self.get_buffer(f"members{i}"))

    @override
    def totals(self, data_dim: int) -> list[list[int]]:
        return [self.get_buffer(f"members{i}").tolist() for i, part in enumerate(self._likelihoods) if part.given_total]

    def parted(self, y: Tensor) -> list[tuple[Likelihood, Tensor]]:
        """Each likelihood with its columns of y (..., D)."""
        return [(part, y[..., self.get_buffer(f"members{i}")]) for i, part in enumerate(self._likelihoods)]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Values of each likelihood's columns as one tensor (..., D), in the columns' order."""
        return torch.cat(list(parts), dim=-1)[..., self.order]

    @property
    def _likelihoods(self) -> list[Likelihood]:
        return [part for part in self.parts if isinstance(part, Likelihood)]


class MixedColumns:
    """The distribution of all columns.

    Args:
        parts: Of the columns of each likelihood.
        likelihood: What knows which these are.
    """

    def __init__(self, parts: Sequence[VectorDistribution], likelihood: Mixed) -> None:
        self._parts, self._likelihood = parts, likelihood

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density or probability of the observed values in nats, shape (...)."""
        return self.log_prob_columns(value).sum(dim=-1)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log p of each column, shape (..., D); 0 where the value is missing."""
        pairs = zip(self._parts, self._likelihood.parted(value), strict=True)
        return self._likelihood.joined([_observed(p, part, y) for p, (part, y) in pairs])

    @property
    def mean(self) -> Tensor:
        """The mean of each column, shape (..., D)."""
        return self._likelihood.joined([p.mean for p in self._parts])

    @property
    def variance(self) -> Tensor:
        """The variance of each column, shape (..., D)."""
        return self._likelihood.joined([p.variance for p in self._parts])

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``."""
        return self._likelihood.joined([p.sample(sample_shape, generator) for p in self._parts])


def _observed(p: VectorDistribution, likelihood: Likelihood, y: Tensor) -> Tensor:
    """Log p per column, 0 where y is missing; a value in the support takes its place, so that no gradient is NaN."""
    if likelihood.given_total:
        return p.log_prob_columns(y)
    missing = y.isnan()
    return p.log_prob_columns(y.masked_fill(missing, likelihood.support.inner)).masked_fill(missing, 0.0)
