"""Annealing of which every row is checked, and repeated with more temperatures where the checks disagree.

Three independent runs anneal each row: one that is reported, from q(z|y) with T temperatures, and two judges, from q with
T / 2 and from the prior with 2 T, which is the weaker start. A row is *settled* where the judges agree within 1 nat, two Monte
Carlo errors included, and the reported run lies within 2 nats of their mean. Rows on which the judges disagree run again with
4 T, then with 16 T. What decides on that is the judges' noise alone: a choice by the reported run's own weights would bias it,
so that E[exp(estimate)] = p(y) would no longer hold. That is also why the reported run is held to a wider limit than the
judges: its noise may leave a row unsettled, but must hardly ever do so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.evidence.annealing import annealed_importance_sampling
from vae.evidence.estimate import Estimate
from vae.evidence.schedule import Annealing
from vae.evidence.tuning import tune_step_sizes

if TYPE_CHECKING:
    from vae.latent_model import LatentModel

LEVELS, FACTOR = 3, 4  # T, 4 T and 16 T temperatures
BETWEEN_JUDGES, FROM_JUDGES = 1.0, 2.0  # nats that the runs of a settled row may differ by
OF_POSTERIOR, OF_PRIOR = 1 / 2, 2  # the judges' temperatures over those of the reported run

Run = Callable[[str, Tensor, Annealing], Estimate]  # stream of the noise, positions of rows (n,), how to anneal


@dataclass(frozen=True)
class Checked:
    """Annealing of N rows with its checks.

    Attributes:
        estimate: The reported run, from q.
        from_posterior: The judge from q, with half the temperatures.
        from_prior: The judge from the prior, with twice the temperatures.
        level: How often a row's temperatures were raised fourfold, integers (N,).
        settled: Whether its runs agree, (N,).
        settings: How the reported run annealed at first, with step sizes.
        decoder_runs: Gradients of the generative network in all.
    """

    estimate: Estimate
    from_posterior: Estimate
    from_prior: Estimate
    level: Tensor
    settled: Tensor
    settings: Annealing
    decoder_runs: int

    @property
    def start_difference(self) -> Tensor:
        """From q minus from the prior, (N,) in nats."""
        return self.estimate.log_likelihood - self.from_prior.log_likelihood

    @property
    def temperature_difference(self) -> Tensor:
        """With T minus with T / 2 temperatures, (N,) in nats."""
        return self.estimate.log_likelihood - self.from_posterior.log_likelihood


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
    starts = [replace(annealing, start=start) for start in ("posterior", "prior")]
    tuned = [tune_step_sizes(vae, pilot, annealing=start, seed=seed) for start in starts]

    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        return annealed_importance_sampling(vae, y[rows], S, annealing=annealing, seed=seed, stream=stream, ids=rows)

    return settle(run, len(y), *tuned, extra=extra)


def settle(run: Run, N: int, posterior: Annealing, prior: Annealing, *, extra: float) -> Checked:
    """Run N rows and their judges, and then those that are not settled with more temperatures, while ``extra`` lasts.

    Args:
        run: Anneals rows; runs of different streams are independent.
        N: Rows.
        posterior: How to anneal from q, with step sizes.
        prior: How to anneal from the prior, likewise.
        extra: What the repetitions may cost, over the cost of the first runs. Where it does not suffice for all, the rows
            whose judges differ most come first.
    """
    checked = _level(run, torch.arange(N), posterior, prior, 0)
    left = extra * checked.decoder_runs
    rows = _disputed(checked)
    for level in range(1, LEVELS):
        cost = _cost(checked.estimate.samples, posterior, level)
        rows = rows[: int(left / cost)].sort().values
        if not len(rows):
            break
        again = _level(run, rows, posterior, prior, level)
        left -= again.decoder_runs
        checked = _replaced(checked, rows, again)
        rows = rows[_disputed(again)]
    return checked


def _level(run: Run, rows: Tensor, posterior: Annealing, prior: Annealing, level: int) -> Checked:
    T = posterior.temperatures * FACTOR**level
    length = f", {FACTOR**level} times as long" if level else ""
    half, twice = max(2, round(OF_POSTERIOR * T)), OF_PRIOR * T
    estimate = run(f"annealing{length}", rows, replace(posterior, temperatures=T))
    from_posterior = run(f"annealing at half the temperatures{length}", rows, replace(posterior, temperatures=half))
    from_prior = run(f"annealing from the prior{length}", rows, replace(prior, temperatures=twice))
    return Checked(
        estimate,
        from_posterior,
        from_prior,
        torch.full((len(rows),), level),
        _agree(from_posterior, from_prior) & _confirmed(estimate, from_posterior, from_prior),
        posterior,
        len(rows) * _cost(estimate.samples, posterior, level),
    )


def _cost(S: int, posterior: Annealing, level: int) -> int:
    """Gradients of the generative network for a row, its judges included."""
    T = posterior.temperatures * FACTOR**level
    return round(S * T * posterior.leapfrog_steps * (1 + OF_POSTERIOR + OF_PRIOR))


def _agree(a: Estimate, b: Estimate) -> Tensor:
    """Whether |a - b| and twice its Monte Carlo error make at most a nat, (N,); not where there is no such error."""
    error = (a.monte_carlo_variance + b.monte_carlo_variance).sqrt()
    return (a.log_likelihood - b.log_likelihood).abs() + 2 * error <= BETWEEN_JUDGES


def _confirmed(estimate: Estimate, a: Estimate, b: Estimate) -> Tensor:
    """Whether an estimate lies likewise near the mean of two judges, (N,)."""
    judged = torch.logaddexp(a.log_likelihood, b.log_likelihood) - math.log(2)
    error = (estimate.monte_carlo_variance + (a.monte_carlo_variance + b.monte_carlo_variance) / 4).sqrt()
    return (estimate.log_likelihood - judged).abs() + 2 * error <= FROM_JUDGES


def _disputed(checked: Checked) -> Tensor:
    """Places of the rows on which the judges disagree, those that differ most first; none where no errors are known."""
    a, b = checked.from_posterior, checked.from_prior
    if not len(a.leave_one_out):
        return torch.arange(0)
    difference = (a.log_likelihood - b.log_likelihood).abs().nan_to_num(math.inf)
    order = difference.argsort(descending=True, stable=True).cpu()
    return order[~_agree(a, b).cpu()[order]]


def _replaced(checked: Checked, rows: Tensor, by: Checked) -> Checked:
    """With other results of some rows; acceptance rates stay those of the first runs."""
    parts = {
        name: getattr(checked, name).replaced(rows, getattr(by, name)) for name in ("estimate", "from_posterior", "from_prior")
    }
    level, settled = checked.level.index_copy(0, rows, by.level), checked.settled.clone()
    settled[rows] = by.settled
    return replace(checked, **parts, level=level, settled=settled, decoder_runs=checked.decoder_runs + by.decoder_runs)
