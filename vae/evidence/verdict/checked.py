"""Annealing of which every row is checked, and repeated with more temperatures where the checks disagree.

Three independent runs anneal each row: one that is reported, from q(z|y) with T temperatures, and two judges, one from the
same start with T / 2 and one from the other, the prior, with 2 T, as it is the weaker one. A row is *settled* where the judges
agree within 1 nat, two Monte Carlo errors included, and the reported run lies within 2 nats of their mean. Rows on which the
judges disagree, by that or by a quarter of a nat more than their errors, run again with 4 T, then 16 T; and where the
judge from the prior did better, the starts change places, as they should where q is narrow and far off. What decides on that
is the judges' noise alone: a choice by the reported run's own weights would bias it, so that E[exp(estimate)] = p(y) would no
longer hold. That is also why the reported run is held to a wider limit than the judges: its noise may leave a row unsettled,
but must hardly ever do so.

Sampling from the prior is a judge too, of rows for which it is well founded: many narrow modes stop chains, but not draws.
It takes the place of the annealing judge of the other start unless that found a quarter of a nat more.

Where q covers a part of the posterior only, its judge can never agree with runs from the prior, however right these are.
Such a judge found less, which contradicts nothing, as all runs are too low in expectation. So a run from a wider prior, with T
temperatures, takes its place where it found no more than the judge of the same start, by a nat or for sure, and at no other
place but one of so little mass that it does not count.

Two runs that end in different places are no agreement, whatever their figures: see `vae.evidence.verdict.judgement.apart`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vae.evidence.annealing.annealed import annealed_importance_sampling
from vae.evidence.annealing.temperatures import Annealing
from vae.evidence.annealing.tuning import tune_step_sizes
from vae.evidence.estimate import SURE, Estimate
from vae.evidence.verdict.judgement import BETWEEN_JUDGES, Judgement, apart

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

LEVELS, FACTOR = 3, 4  # T, 4 T and 16 T temperatures
FROM_JUDGES = 2.0  # nats that the reported run of a settled row may differ by from the judges' mean
OF_SAME_START, OF_OTHER_START, OF_WIDE_START = 1 / 2, 2, 1  # the judges' temperatures over those of the reported run
WIDER = 2.0  # times the prior's standard deviations that the wide start has
NEGLIGIBLE = 3.0  # nats below the rest, at which a place that the other runs miss adds less than 0.05 nats


class Chains(NamedTuple):
    """What is to be annealed.

    Attributes:
        stream: Of the noise; no other run of a row has it.
        rows: Their positions, (n,).
        annealing: How.
    """

    stream: str
    rows: Tensor
    annealing: Annealing


Run = Callable[[Sequence[Chains]], list[Estimate]]  # of runs that do not depend on each other, so that they may run at once


def one_by_one(anneal: Callable[[str, Tensor, Annealing], Estimate]) -> Run:
    """Runs after each other, by a function of what `Chains` has."""
    return lambda asked: [anneal(*chains) for chains in asked]


@dataclass(frozen=True)
class Checked:
    """Annealing of N rows with its checks.

    Attributes:
        estimate: The reported run.
        same_start: The judge from the same start, with half the temperatures.
        other_start: The judge from the other start, with twice the temperatures, or what takes its place: sampling from the
            prior, or annealing from a wider prior.
        at_prior: Whether the reported run starts at the prior, and the judge of the other start at q, booleans (N,).
        to_change: Whether the other start did better by the annealing judges, so that starts change places next time, (N,).
        apart: Whether the annealing judges end in different places, (N,), so that each may have missed what the other found.
        level: How often a row's temperatures were raised fourfold, integers (N,).
        settled: Whether its runs agree, (N,).
        settings: How the reported run annealed at first, with step sizes.
        decoder_runs: Gradients of the generative network in all, but for those that find the shapes of posteriors.
    """

    estimate: Estimate
    same_start: Judgement
    other_start: Judgement
    at_prior: Tensor
    to_change: Tensor
    apart: Tensor
    level: Tensor
    settled: Tensor
    settings: Annealing
    decoder_runs: int

    @property
    def start_difference(self) -> Tensor:
        """From q minus from the prior, (N,) in nats."""
        difference = self.estimate.log_likelihood - self.other_start.log_likelihood
        return torch.where(self.at_prior.to(difference.device), -difference, difference)

    @property
    def temperature_difference(self) -> Tensor:
        """With T minus with T / 2 temperatures, (N,) in nats."""
        return self.estimate.log_likelihood - self.same_start.log_likelihood

    def shifted(self, by: Tensor) -> Checked:
        """With something added to each row's log-likelihood, (N,)."""
        parts = {name: getattr(self, name).shifted(by) for name in ("estimate", "same_start", "other_start")}
        return replace(self, **parts)

    def replaced(self, rows: Tensor, by: Checked) -> Checked:
        """With other results of some rows, at positions (n,); acceptance rates stay those of the first runs."""
        parts = {
            name: getattr(self, name).replaced(rows, getattr(by, name)) for name in ("estimate", "same_start", "other_start")
        }
        flags = {
            name: (old := getattr(self, name)).index_copy(0, rows.to(old.device), getattr(by, name))
            for name in ("at_prior", "to_change", "apart", "level", "settled")
        }
        return replace(self, **parts, **flags, decoder_runs=self.decoder_runs + by.decoder_runs)


def checked_annealing(
    vae: LatentModel,
    y: Tensor,
    S: int = 16,
    *,
    pilot: Tensor | None = None,
    annealing: Annealing | None = None,
    extra: float = 6.0,
    seed: int = 0,
) -> Checked:
    """Anneal rows y (N, D) by S chains each, and check every row; see the module.

    Args:
        vae: The model.
        y: Rows.
        S: Chains per row and run; with fewer than 10 no row has a Monte Carlo error, and none is settled.
        pilot: Rows on which step sizes are tuned; rows that the model generates by default.
        annealing: Temperatures and leapfrog steps of the reported run at first.
        extra: What runs with more temperatures may cost, over the cost of the first.
        seed: Of the noise.

    Raises:
        ValueError: As `annealed_importance_sampling`.
    """
    y, annealing = vae.as_rows(y), annealing or Annealing()

    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        return annealed_importance_sampling(vae, y[rows], S, annealing=annealing, seed=seed, stream=stream, ids=rows)

    return settle(one_by_one(run), len(y), *tuned_starts(vae, pilot, annealing, seed=seed), extra=extra)


def tuned_starts(vae: LatentModel, pilot: Tensor | None, annealing: Annealing, *, seed: int) -> tuple[Annealing, Annealing]:
    """How to anneal from q and from the prior, with step sizes tuned on pilot rows."""
    from_posterior, from_prior = (replace(annealing, start=start) for start in ("posterior", "prior"))
    return (
        tune_step_sizes(vae, pilot, annealing=from_posterior, seed=seed),
        tune_step_sizes(vae, pilot, annealing=from_prior, seed=seed),
    )


def settle(
    run: Run, N: int, posterior: Annealing, prior: Annealing, *, extra: float, sampled: Estimate | None = None
) -> Checked:
    """Run N rows and their judges, and then those that are not settled with more temperatures, while ``extra`` lasts.

    Args:
        run: Anneals rows, several runs at a time; runs of different streams are independent.
        N: Rows.
        posterior: How to anneal from q, with step sizes.
        prior: How to anneal from the prior, likewise.
        extra: What the repetitions may cost, over the cost of the first runs. Where it does not suffice for all, the rows
            whose judges differ most come first.
        sampled: Of these rows by sampling from the prior: a judge of those for which it is well founded.
    """
    levels = _Levels(run, posterior, prior, sampled)
    checked = levels.at(0, torch.arange(N), at_prior=False)
    left = extra * checked.decoder_runs
    rows = _disputed(checked, torch.arange(N))
    for level in range(1, LEVELS):
        rows = rows[: max(0, int(left / levels.cost(checked.estimate.samples, level)))].sort().values
        better_at_prior = checked.at_prior ^ checked.to_change
        for at_prior in (False, True):
            if len(some := rows[better_at_prior[rows] == at_prior]):
                again = levels.at(level, some, at_prior=at_prior)
                left -= again.decoder_runs
                checked = checked.replaced(some, again)
        rows = _disputed(checked, rows)
    return checked


@dataclass(frozen=True)
class _Levels:
    """What `settle` runs, with which settings."""

    run: Run
    posterior: Annealing
    prior: Annealing
    sampled: Estimate | None

    def at(self, level: int, rows: Tensor, *, at_prior: bool) -> Checked:
        """The reported run of rows from a start, and its judges."""
        start, other = (self.prior, self.posterior) if at_prior else (self.posterior, self.prior)
        runs = (("annealing", start, 1.0), ("check", start, OF_SAME_START), ("check", other, OF_OTHER_START))
        estimate, check, from_other = self.run([self._chains(role, rows, how, times, level) for role, how, times in runs])
        same, another, reported = (Judgement.of(run) for run in (check, from_other, estimate))
        to_change = another.beats(same, OF_OTHER_START / OF_SAME_START).cpu()
        another, by_draws = self._or_sampled(rows, another)
        no_more = rows[:0]
        if at_prior:
            disagree = ~same.agrees(another) | apart(check, from_other)
            more = another.exceeds(same, SURE) | (another.log_likelihood > same.log_likelihood + BETWEEN_JUDGES)
            no_more = (disagree & ~more & ~by_draws).nonzero()[:, 0].cpu()
        if len(no_more):
            from_other = self._or_wide(rows, no_more, level, check, from_other)
            another = another.replaced(no_more, Judgement.of(from_other.of(no_more)))
        arrived = ~by_draws | (from_other.log_likelihood >= another.log_likelihood - SURE)
        judges_apart = (apart(check, from_other) & arrived).cpu()
        settled = same.agrees(another) & reported.agrees(same.mean(another), FROM_JUDGES)
        return Checked(
            estimate,
            same,
            another,
            torch.full((len(rows),), at_prior),
            to_change,
            judges_apart,
            torch.full((len(rows),), level),
            settled & ~(apart(estimate, from_other) & arrived) & ~judges_apart.to(settled.device),
            self.posterior,
            len(rows) * self.cost(estimate.samples, level) + len(no_more) * self.cost(estimate.samples, level, OF_WIDE_START),
        )

    def _or_sampled(self, rows: Tensor, another: Judgement) -> tuple[Judgement, Tensor]:
        """The judge of the other start, or sampling from the prior where that is one, and where it is (n,)."""
        if self.sampled is None:
            return another, torch.zeros_like(another.log_likelihood, dtype=torch.bool)
        sampled = self.sampled.of(rows)
        judge = Judgement.of(sampled)
        by_draws = sampled.well_founded & (another.log_likelihood <= judge.log_likelihood + SURE)
        return judge.where(by_draws, another), by_draws

    def _or_wide(self, rows: Tensor, no_more: Tensor, level: int, check: Estimate, other: Estimate) -> Estimate:
        """The judge of the other start, or, at positions (n,) where that found no more, annealing from a wider prior.

        Not where it ended in another place than both, whose mass may add to theirs.
        """
        wider = replace(self.prior, widen=WIDER)
        (wide,) = self.run([self._chains("wide check", rows[no_more], wider, OF_WIDE_START, level)])
        check, partial = check.of(no_more), other.of(no_more)
        little = Judgement.of(check).exceeds(Judgement.of(partial), NEGLIGIBLE)
        explained = little | ~(apart(check, partial) & apart(wide, partial))
        return other.replaced(no_more[explained.cpu()], wide.of(explained.nonzero()[:, 0]))

    def _chains(self, role: str, rows: Tensor, start: Annealing, of_temperatures: float, level: int) -> Chains:
        """By a stream that no other run of a row has. Of "annealing" draws are shared with importance sampling."""
        T = max(2, round(of_temperatures * start.temperatures * FACTOR**level))
        place = {("annealing", "posterior"): "", ("check", "posterior"): " from q"}.get((role, start.start), " from the prior")
        length = f", {FACTOR**level} times as long" if level else ""
        return Chains(f"{role}{place}{length}", rows, replace(start, temperatures=T))

    def cost(self, S: int, level: int, of_temperatures: float = 1 + OF_SAME_START + OF_OTHER_START) -> int:
        """Gradients of the generative network for a row, its judges included."""
        T = self.posterior.temperatures * FACTOR**level
        return round(S * T * self.posterior.leapfrog_steps * of_temperatures)


def _disputed(checked: Checked, rows: Tensor) -> Tensor:
    """Those of some rows on which the judges disagree, by a nat or for sure, most first; none where no errors are known."""
    if not len(checked.estimate.leave_one_out):
        return rows[:0]
    same, other = (Judgement(*(part[rows].cpu() for part in judge)) for judge in (checked.same_start, checked.other_start))
    difference = (same.log_likelihood - other.log_likelihood).abs().nan_to_num(math.inf)
    order = difference.argsort(descending=True, stable=True)
    disputed = ~same.agrees(other) | same.exceeds(other, SURE) | other.exceeds(same, SURE) | checked.apart[rows]
    return rows[order[disputed[order]]]
