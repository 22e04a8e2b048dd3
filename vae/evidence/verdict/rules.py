"""The rules by which a figure can be trusted or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vae.evidence.estimate import MeanWithError
from vae.evidence.verdict.others import SURELY

TOLERANCE = 0.2  # nats
LEAST_ACCEPTANCE = 0.4
LARGEST_SHARE = 0.05  # of unreliable rows
FALSE_ALARM = 0.01  # of the rule on other estimates that may be noisy
CONFIDENCE = 0.95  # of the bound on rows that were not looked at
LEAST_CHAINS = 10  # that have a Monte Carlo error
LEAST_SETTLED = 1 / 2  # of the simulated rows
LARGEST_ROUNDING = 1 / 4  # of the tolerance
NAMED = 10  # rows that a reason lists


@dataclass(frozen=True)
class Grounds:
    """What the verdict on annealing rests on.

    Attributes:
        gap: Upper minus lower bound on simulated data, of the settled rows.
        start_difference: Annealing from q minus from the prior, on every annealed row.
        temperature_difference: Annealing with T minus with T / 2 temperatures, likewise.
        acceptance: Mean acceptance rate of each range of temperatures.
        unreliable: Which annealed rows' chains are worth less than a quarter of their number, (n,).
        unsettled: Names of the annealed rows whose runs disagree, see `vae.evidence.verdict.checked`.
        disputed: How many annealed rows' judges disagreed at first, settled since or not.
        rows: N, the rows that the mean is of.
        looked_at: How many of them were annealed.
        simulated_settled: Share of the simulated rows that are settled.
        unit: What these three count: rows, or groups of rows that may depend on each other.
        excess: By other estimator, log of the mean over rows of exp(its estimate - the reported one), see `others.excess`.
        surplus: By other estimator, what it is higher by, see `others.surpluses`.
        rounding: Mean over the annealed rows of what log p(y|z) is rounded to, in nats.
        chains: Of each run, where there are too few for Monte Carlo errors; None where there are enough.
    """

    gap: MeanWithError
    start_difference: MeanWithError
    temperature_difference: MeanWithError
    acceptance: Sequence[float]
    unreliable: Tensor
    unsettled: Sequence[int]
    disputed: int
    rows: int
    looked_at: int
    simulated_settled: float = 1.0
    unit: str = "rows"
    excess: Mapping[str, float] = field(default_factory=dict)
    surplus: Mapping[str, MeanWithError] = field(default_factory=dict)
    rounding: float = 0.0
    chains: int | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether the reported log-likelihood can be trusted, and why not.

    Attributes:
        reasons: What fell short, and what to raise.
        tolerance: To how many nats.
        unseen: What is known of rows that were not annealed.
    """

    reasons: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    unseen: str = ""

    @property
    def trusted(self) -> bool:
        """Whether every rule holds."""
        return not self.reasons

    def __str__(self) -> str:
        if not self.trusted:
            return "lower bound only"
        return f"can be trusted to {self.tolerance:g} nats{self.unseen and '; '}{self.unseen}"


def most_unseen(rows: int, looked_at: int, counted: int) -> int:
    """Upper 95 % bound of how many rows count among those not looked at, if so many of a random subset do (hypergeometric).

    The largest number for which it would not be unlikely to count so few.
    """
    from scipy.stats import hypergeom  # here, because it takes long to import

    totals = torch.arange(counted, rows - looked_at + counted + 1)
    likely = torch.as_tensor(hypergeom.cdf(counted, rows, totals.numpy(), looked_at)) > 1 - CONFIDENCE
    return int(totals[likely].max()) - counted


def verdict(reported: str, grounds: Grounds | None, tolerance: float = TOLERANCE) -> Verdict:
    """Trust an exact value; trust annealing if every check holds; take anything else for a lower bound.

    The rules for annealing are tests of equivalence: with e the tolerance in nats, |mean| + 2 SE < e for the gap of the bounds
    on simulated data, and for paired differences between starts and between T and T / 2 temperatures (more than 2 SE where
    rows or groups are few). So what is not known well enough fails. Further, every annealed row is settled; under 5 % have
    chains with an effective sample size below C / 4; at least half of the simulated rows are settled, of which the gap is;
    every range of temperatures accepts 0.4 or more of its proposals; and no other estimate, all of which are too low
    in expectation, is higher: neither by more than chance allows at a false-alarm rate of 1 %, nor, where it is well founded,
    by three of its errors and maybe the tolerance. What log p(y|z) is rounded to is below a quarter of the tolerance.
    """
    if reported == "exact":
        return Verdict(tolerance=tolerance)
    if reported != "annealed":
        return Verdict(
            (f"nothing says how far {reported} sampling stays below log p(y): add annealed and bounds to the estimators",),
            tolerance,
        )
    if grounds is None:
        return Verdict(("annealing was not checked: add bounds to the estimators",), tolerance)
    reasons = tuple(reason for rule in RULES for reason in rule(grounds, tolerance))
    if not (others := grounds.rows - grounds.looked_at):
        return Verdict(reasons, tolerance)
    most = most_unseen(grounds.rows, grounds.looked_at, grounds.disputed)
    unseen = f"of the {others} {grounds.unit} that were not annealed at most {most} would be disputed ({CONFIDENCE:.0%})"
    return Verdict(reasons, tolerance, unseen)


def rows_are_settled(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """Every annealed row is settled."""
    if grounds.chains is not None:
        yield f"{grounds.chains} chains have no Monte Carlo error, so that no row is settled: take at least {LEAST_CHAINS}"
    elif count := len(grounds.unsettled):
        names = ", ".join(map(str, grounds.unsettled[:NAMED])) + (f" and {count - NAMED} more" if count > NAMED else "")
        subject = f"row {names} is" if count == 1 else f"rows {names} are"
        yield (
            f"{subject} not settled: independent runs differ by more than a nat, errors included, or end in different "
            "places: raise the temperatures, or what may be spent on such rows (extra)"
        )


def differences_vanish(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """What should be 0 is within the tolerance, two standard errors included."""
    simulated, longer = "raise the temperatures, or the simulated rows if the error is large", "raise the temperatures"
    for what, difference, remedy in (
        ("the upper and the lower bound on simulated data differ", grounds.gap, simulated),
        ("annealing from q and from the prior differs", grounds.start_difference, longer),
        ("annealing with T and with T / 2 temperatures differs", grounds.temperature_difference, longer),
    ):
        if math.isnan(difference.margin):
            yield f"{what} by {difference.mean:+.3f} nats on the only row, which says nothing of the error: take more rows"
        elif not difference.within(tolerance):
            multiple = difference.margin / difference.standard_error if difference.standard_error else 2
            yield (
                f"{what} by {difference.mean:+.3f} ± {difference.standard_error:.3f} nats; its size + {multiple:.2g} SE must "
                f"be below {tolerance:g}: {remedy}"
            )


def simulated_rows_are_settled(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """At least half of the simulated rows are settled."""
    if not grounds.simulated_settled >= LEAST_SETTLED:
        yield (
            f"only {grounds.simulated_settled:.0%} of the simulated rows are settled, and the bounds are of these: raise the "
            "temperatures, or what may be spent on rows that are not (extra)"
        )


def proposals_are_accepted(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """Every range of temperatures accepts enough of its proposals."""
    low = [rate for rate in grounds.acceptance if not rate >= LEAST_ACCEPTANCE]
    if low:
        yield (
            f"{len(low)} of {len(grounds.acceptance)} ranges of temperatures accept less than {LEAST_ACCEPTANCE} of their "
            f"proposals (for one, {low[0]:.2f}): raise the temperatures or the leapfrog steps"
        )


def chains_are_worth_enough(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """Few rows have chains that are worth less than a quarter of their number."""
    poor = grounds.unreliable.double().mean().item()
    if not poor < LARGEST_SHARE:
        yield (
            f"the chains of {poor:.0%} of the examples have an effective sample size below a quarter of their number; "
            f"fewer than {LARGEST_SHARE:.0%} may: raise the temperatures or the chains"
        )


def rounding_is_small(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """What log p(y|z) is rounded to is small beside the tolerance."""
    if not grounds.rounding < tolerance * LARGEST_ROUNDING:
        yield (
            f"log p(y|z) is so large that the model's precision rounds it by {grounds.rounding:.2g} nats a row: look at the "
            "least likely rows, or compute in float64"
        )


def no_other_is_higher(grounds: Grounds, tolerance: float) -> Iterator[str]:
    """No other estimate, all of which are too low in expectation, is higher by more than chance."""
    for name, higher in grounds.surplus.items():
        if higher.mean > SURELY * higher.standard_error and not higher.mean + 2 * higher.standard_error < tolerance:
            yield (
                f"{name} is higher than annealing by {higher.mean:.3f} ± {higher.standard_error:.3f} nats, by Monte Carlo "
                "error: annealing misses a part of the latent space that it found"
            )
    limit = -math.log(FALSE_ALARM)
    for name, value in grounds.excess.items():
        if not value < limit:
            yield (
                f"{name} found {value:.1f} nats more than annealing (log of the mean over rows of the ratio of p); chance "
                f"exceeds {limit:.1f} in {FALSE_ALARM:.0%} of all cases at the most: annealing misses a part of the latent "
                "space; look at the rows where the two differ most"
            )


# a rule gives the reasons why a mean is not known to a tolerance, or nothing where it holds
RULES: tuple[Callable[[Grounds, float], Iterator[str]], ...] = (
    rows_are_settled,
    differences_vanish,
    simulated_rows_are_settled,
    proposals_are_accepted,
    chains_are_worth_enough,
    rounding_is_small,
    no_other_is_higher,
)
