"""One figure from several estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vae.evidence import clusters
from vae.evidence.estimate import MeanWithError

PREFERENCE = ("exact", "annealed", "importance", "prior")


def reported_estimator(available: Sequence[str]) -> str:
    """Which estimator is reported: the first of exact, annealed, importance and prior that ran, never the larger value.

    Raises:
        ValueError: If none of them ran.
    """
    for name in PREFERENCE:
        if name in available:
            return name
    raise ValueError(
        f"one of the estimators {', '.join(PREFERENCE)} is needed to report log p(y); got {', '.join(available) or 'none'}"
    )


def two_stage(everywhere: Tensor, better: Tensor, subset: Tensor, groups: Tensor | None = None) -> MeanWithError:
    """Mean over all + mean over a random subset of (better - everywhere), with the standard error of both stages.

    The difference estimator of double sampling (Cochran 1977, chapter 12), for examples drawn from a population:
    Var = s_x^2 / N + s_d^2 / n + 2 s_xd / N. Where examples come in groups, of which whole ones are drawn for the subset, each
    of the three terms is that of the groups' totals.

    Args:
        everywhere: A cheap estimate x for all N examples, shape (N,).
        better: A dear one for the n examples of the subset, shape (n,).
        subset: Their positions, integers (n,), chosen at random.
        groups: Of all examples, integers (N,): examples of one group may depend on each other. None: all are independent.
    """
    N, n = len(everywhere), len(better)
    if n == N:
        return MeanWithError.of(better, None if groups is None else groups[subset])
    difference = better - everywhere[subset]
    if groups is not None:
        return _of_groups(everywhere, difference, subset, groups)
    mean = everywhere.mean() + difference.mean()
    if n < 2:
        return MeanWithError(mean.item(), math.nan)
    covariance = torch.cov(torch.stack([everywhere[subset], difference]))
    first, second = everywhere.var() / N, covariance[1, 1] / n
    variance = first + second + 2 * covariance[0, 1] / N
    degrees = clusters.combined((first.item(), second.item()), (N - 1, n - 1), independent=False)
    return MeanWithError(mean.item(), math.sqrt(max(variance.item(), 0.0)), degrees)


def _of_groups(everywhere: Tensor, difference: Tensor, subset: Tensor, groups: Tensor) -> MeanWithError:
    """`two_stage`, x centred for its covariance with d by its mean over the subset, as s_xd is."""
    first, second = MeanWithError.of(everywhere, groups), MeanWithError.of(difference, groups[subset])
    within = clusters.totals((everywhere[subset] - everywhere[subset].mean()) / len(everywhere), groups[subset])
    both = clusters.covariance(within, clusters.totals((difference - second.mean) / len(difference), groups[subset]))
    variances = first.standard_error**2, second.standard_error**2
    error = math.nan if math.isnan(both) else math.sqrt(max(math.fsum(variances) + 2 * both, 0.0))
    degrees = clusters.combined(variances, (first.degrees_of_freedom, second.degrees_of_freedom), independent=False)
    effective = clusters.combined(variances, (first.effective_groups or 0, second.effective_groups or 0), independent=False)
    return MeanWithError(first.mean + second.mean, error, degrees, first.groups, effective)
