"""Closed-form first guesses of parameters from rows y (N, D): of each column, missing values (NaN) aside.

A column without a value has NaN, which `Likelihood.initial_outputs` makes 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-3  # of a probability, as Burda et al. (2016) have it, and of a mean count
LEAST_VARIANCE = 1e-2  # less than what the last layer's first weights add would make the first losses huge
CONCENTRATIONS = (2e-2, 1e2)  # of beta densities
LARGEST_LOGIT = 30.0  # of a continuous Bernoulli: the first other value in a column that was constant costs no more nats
SHARED = (1.0, 1e4)  # concentrations of all columns that share a total


def log_mean(y: Tensor, least: float = LEAST) -> Tensor:
    """The logarithm of the mean, (D,)."""
    return y.nanmean(dim=0).clamp_min(least).log()


def variance(y: Tensor) -> Tensor:
    """The mean square from the mean, (D,)."""
    return (y - y.nanmean(dim=0)).square().nanmean(dim=0)


def logit(probability: Tensor) -> Tensor:
    """The logit of a probability between the least and the largest that a guess has."""
    return probability.clamp(LEAST, 1 - LEAST).logit()


def share(holds: Tensor, y: Tensor) -> Tensor:
    """The share of the known values for which ``holds`` (N, D) is true, (D,)."""
    return holds.to(y.dtype).masked_fill(y.isnan(), torch.nan).nanmean(dim=0)


def frequencies(y: Tensor, levels: int) -> Tensor:
    """The share of each level 0, ..., levels - 1 in each column, (D, levels).

    A value between two levels counts for both, as a probability does for 0 and 1.
    """
    columns = torch.arange(y.shape[1], device=y.device).expand_as(y)[~y.isnan()]
    known = y[~y.isnan()]
    low = known.floor()
    counts = torch.zeros(y.shape[1], levels, dtype=y.dtype, device=y.device)
    for level, weight in ((low, 1 - known + low), ((low + 1).clamp_max(levels - 1), known - low)):
        counts.index_put_((columns, level.long()), weight, accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True)


def location(thresholds: Tensor, cumulative: Tensor) -> Tensor:
    """f of P(y <= j) = sigmoid(threshold_j - f), (D,), by thresholds and frequencies of y <= j, both (D, levels - 1).

    Each threshold gives one, of which the mean is weighted by the inverse of its variance (Berkson 1944, minimum logit
    chi-squared).
    """
    cumulative = cumulative.clamp(LEAST, 1 - LEAST)
    weights = cumulative * (1 - cumulative)
    return (weights * (thresholds - cumulative.logit())).sum(dim=1) / weights.sum(dim=1)


def concentrations(y: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of a beta density by mean m and variance v, each (D,): a = m s, b = (1 - m) s, s = m (1 - m) / v - 1."""
    m = y.nanmean(dim=0).clamp(LEAST, 1 - LEAST)
    s = m * (1 - m) / variance(y) - 1
    least, largest = CONCENTRATIONS
    return (m * s).clamp(least, largest), ((1 - m) * s).clamp(least, largest)


def zero_inflation(y: Tensor) -> tuple[Tensor, Tensor]:
    """Log mean of the counts, and share of zeros beside them, each (D,), by mean m and share z of zeros, with r = 1.

    (1 - share) mean = m and share + (1 - share) / (1 + mean) = z, so that 1 - share = (1 - z) m / (m - 1 + z).
    """
    m, positive = y.nanmean(dim=0).clamp_min(LEAST), y.clamp(0, 1).nanmean(dim=0)
    counted = (positive * m / (m - positive).clamp_min(0)).clamp(LEAST, 1 - LEAST)
    return (m / counted).log(), 1 - counted


def shares(y: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (D,) of the columns in a row's total, and the sum A of concentrations by which they vary.

    Pearson's chi-squared of a row of total n is D - 1 times (n + A) / (1 + A) in expectation (Mosimann 1962, "On the compound
    multinomial distribution").
    """
    share = y.nanmean(dim=0).clamp_min(LEAST)
    share = share / share.nansum()
    total = y.nansum(dim=1, keepdim=True)
    total = total.masked_fill(total == 0, torch.nan)
    seen = share.where(~y.isnan(), 0.0)
    expected = total * seen / seen.nansum(dim=1, keepdim=True)
    squares = ((y - expected).square() / expected).nansum(dim=1) / (~y.isnan()).sum(dim=1).sub(1).clamp_min(1)
    excess, typical = squares.masked_fill(total[:, 0].isnan(), torch.nan).nanmean(), total.nanmean()
    least, largest = SHARED
    return share, ((typical - excess) / (excess - 1).clamp_min(0)).nan_to_num(largest).clamp(least, largest)


def continuous_logit(y: Tensor) -> Tensor:
    """The logit of a continuous Bernoulli by its mean m, (D,).

    m = 1/2 + L(logit / 2) / 2 with Langevin's function L, whose inverse at u is u (3 - u^2) / (1 - u^2) but for 5 % (Cohen
    1991, "A Padé approximant to the inverse Langevin function").
    """
    u = 2 * y.nanmean(dim=0).clamp(LEAST, 1 - LEAST) - 1
    return (2 * u * (3 - u.square()) / (1 - u.square())).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
