"""One figure from several estimators, and the rules by which it can be trusted or not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vae.evidence import clusters
from vae.evidence.estimate import MeanWithError

PREFERENCE = ("exact", "annealed", "importance", "prior")
LARGEST_GAP = 0.1  # nats
ACCEPTANCE = (0.4, 0.98)
LEAST_CHAIN_SHARE, LARGEST_SHARE = 1 / 4, 0.05


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
    error = math.nan if math.isnan(both) else math.sqrt(max(sum(variances) + 2 * both, 0.0))
    degrees = clusters.combined(variances, (first.degrees_of_freedom, second.degrees_of_freedom), independent=False)
    effective = clusters.combined(variances, (first.effective_groups or 0, second.effective_groups or 0), independent=False)
    return MeanWithError(first.mean + second.mean, error, degrees, first.groups, effective)


@dataclass(frozen=True)
class Evidence:
    """What the verdict on annealing rests on.

    Attributes:
        gap: Upper minus lower bound on simulated data.
        start_difference: Annealing from q minus from the prior, on the same test examples.
        temperature_difference: Annealing with T minus with 2 T temperatures, likewise.
        acceptance: Mean acceptance rate of each range of temperatures.
        chains: C.
        effective_sample_size: Of the chains of each example, shape (N,).
    """

    gap: MeanWithError
    start_difference: MeanWithError
    temperature_difference: MeanWithError
    acceptance: Sequence[float]
    chains: int
    effective_sample_size: Tensor


@dataclass(frozen=True)
class Verdict:
    """Whether the reported log-likelihood can be trusted, and why not.

    Attributes:
        reasons: What fell short, and what to raise.
    """

    reasons: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether every rule holds."""
        return not self.reasons

    def __str__(self) -> str:
        return "can be trusted" if self.trusted else "lower bound only"


def verdict(reported: str, evidence: Evidence | None) -> Verdict:
    """Trust an exact value; trust annealing if every check holds; take anything else for a lower bound.

    The rules, for annealing: the gap on simulated data + 2 SE is below 0.1 nats; the paired differences between starts and
    between T and 2 T temperatures are below 0.1 nats + 2 SE in size; every range of temperatures accepts between 0.4 and
    0.98 of its proposals; fewer than 5 % of the examples have chains with an effective sample size below C / 4.
    """
    if reported == "exact":
        return Verdict()
    if reported != "annealed":
        return Verdict(
            (f"nothing says how far {reported} sampling stays below log p(y): add annealed and bounds to the estimators",)
        )
    if evidence is None:
        return Verdict(("annealing was not checked: add bounds to the estimators",))
    return Verdict(tuple(_shortfalls(evidence)))


def _shortfalls(evidence: Evidence) -> Iterator[str]:
    gap = evidence.gap
    if not gap.mean + 2 * gap.standard_error < LARGEST_GAP:
        yield (
            f"the bounds on simulated data are {gap.mean:.3f} ± {gap.standard_error:.3f} nats apart; gap + 2 SE must be "
            f"below {LARGEST_GAP}: raise the temperatures, or the simulated rows if the error is large"
        )
    yield from _difference("from q and from the prior", evidence.start_difference)
    yield from _difference("with T and with 2 T temperatures", evidence.temperature_difference)
    low, high = ACCEPTANCE
    outside = [rate for rate in evidence.acceptance if not low <= rate <= high]
    if outside:
        yield (
            f"{len(outside)} of {len(evidence.acceptance)} ranges of temperatures accept outside {low} to {high} (for one, "
            f"{outside[0]:.2f}): raise the temperatures or the leapfrog steps"
        )
    poor = (~(evidence.effective_sample_size >= evidence.chains * LEAST_CHAIN_SHARE)).double().mean().item()
    if not poor < LARGEST_SHARE:
        yield (
            f"the chains of {poor:.0%} of the examples have an effective sample size below a quarter of their number; "
            f"fewer than {LARGEST_SHARE:.0%} may: raise the temperatures or the chains"
        )


def _difference(what: str, difference: MeanWithError) -> Iterator[str]:
    if not abs(difference.mean) < LARGEST_GAP + 2 * difference.standard_error:
        yield (
            f"annealing {what} differs by {difference.mean:+.3f} ± {difference.standard_error:.3f} nats on the same examples; "
            f"{LARGEST_GAP} + 2 SE is allowed: raise the temperatures"
        )
