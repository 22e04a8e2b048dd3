"""What runs say of rows, and whether two of them agree: in figures, and in the places where they end."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

from vae.evidence.estimate import Estimate

BETWEEN_JUDGES = 1.0  # nats that the judges of a settled row may differ by
APART = 3.0  # of their standard deviations, beyond which chains of two runs end in different places
CHANCE = 1e-6  # that Student's t has for that


class Judgement(NamedTuple):
    """Estimates of log p(y) and their Monte Carlo variances, each (N,)."""

    log_likelihood: Tensor
    variance: Tensor

    @classmethod
    def of(cls, estimate: Estimate) -> Judgement:
        """What an estimate says."""
        return cls(estimate.log_likelihood, estimate.monte_carlo_variance)

    def replaced(self, rows: Tensor, by: Judgement) -> Judgement:
        """With others for some rows, at positions (n,)."""
        return Judgement(*(old.index_copy(0, rows.to(old.device), new) for old, new in zip(self, by, strict=True)))

    def where(self, condition: Tensor, other: Judgement) -> Judgement:
        """This where the condition (N,) holds, and another elsewhere."""
        return Judgement(*(mine.where(condition, its) for mine, its in zip(self, other, strict=True)))

    def shifted(self, by: Tensor) -> Judgement:
        """With something added to each row's, (N,)."""
        return Judgement(self.log_likelihood + by, self.variance)

    def mean(self, other: Judgement) -> Judgement:
        """Of p(y) by two."""
        value = torch.logaddexp(self.log_likelihood, other.log_likelihood) - math.log(2)
        return Judgement(value, (self.variance + other.variance) / 4)

    def agrees(self, other: Judgement, limit: float = BETWEEN_JUDGES) -> Tensor:
        """Whether the difference and twice its Monte Carlo error are within a limit, (N,); not where an error is unknown."""
        return (self.log_likelihood - other.log_likelihood).abs() + 2 * self._error(other) <= limit

    def exceeds(self, other: Judgement, by: float = 0.0) -> Tensor:
        """Whether this is higher by so many nats and more than two errors, (N,)."""
        return self.log_likelihood - other.log_likelihood > by + 2 * self._error(other)

    def beats(self, other: Judgement, temperatures: float) -> Tensor:
        """Whether this finds more, (N,), or as much with less noise than having so many times the temperatures explains."""
        return self.exceeds(other) | (~other.exceeds(self) & (other.variance > temperatures * self.variance))

    def _error(self, other: Judgement) -> Tensor:
        return (self.variance + other.variance).sqrt()


def apart(one: Estimate, other: Estimate) -> Tensor:
    """Whether the chains of two runs of the same rows end in different places, (N,).

    Two modes of equal mass, each found by one of the runs, would look like agreement. A row's runs are apart where the means
    of a feature differ by three standard deviations within the runs, and by more than Student's t grants to chance. Runs that
    are both spread over several modes are not: their deviations are as large as the modes are far.
    """
    if not (one.ends.shape[1] and other.ends.shape[1]):  # not by annealing
        return torch.zeros_like(one.log_likelihood, dtype=torch.bool)
    (mean, variance), (mean_of_other, variance_of_other) = one.ends, other.ends
    chains = torch.stack([one.effective_sample_size, other.effective_sample_size])
    error = (variance / chains[0] + variance_of_other / chains[1]).sqrt()
    t = torch.as_tensor(stdtrit((chains.sum(dim=0) - 2).clamp_min(1).cpu().numpy(), 1 - CHANCE / 2)).to(error)
    limit = torch.maximum(APART * ((variance + variance_of_other) / 2).sqrt(), t * error)
    return ((mean - mean_of_other).abs() > limit).any(dim=0)
