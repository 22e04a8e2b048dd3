"""Annealing of some rows, its checks, and what they amount to, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vae.evidence.annealing.annealed import annealed_importance_sampling, reverse_annealing
from vae.evidence.annealing.temperatures import Annealing
from vae.evidence.estimate import Estimate, MeanWithError
from vae.evidence.from_posterior import importance_sampling
from vae.evidence.from_prior import prior_sampling
from vae.evidence.integration.exact import Exact, exact, exact_applies
from vae.evidence.verdict.bidirectional import Bounds, settled_bounds, simulated_rows
from vae.evidence.verdict.checked import Checked, Run, one_by_one, settle, tuned_starts
from vae.evidence.verdict.others import excess, surpluses
from vae.evidence.verdict.rules import LEAST_CHAINS, TOLERANCE, Grounds, Verdict, verdict

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

WIDE = 3.0  # times the prior's standard deviations, where another estimate looks for what annealing misses


@dataclass(frozen=True)
class Assessment:
    """log p(y) of N rows, and how far to trust it.

    Attributes:
        log_likelihood: Per row, (N,), float64, in nats.
        verdict: By `vae.evidence.verdict.rules`.
        exact: The exact values, where they are what is reported; there is nothing to check then.
        checked: Annealing otherwise, with what every row's checks say.
        bounds: On simulated rows.
        others: Other estimates of the same rows, which must not be higher.
    """

    log_likelihood: Tensor
    verdict: Verdict
    exact: Exact | None = None
    checked: Checked | None = None
    bounds: Bounds | None = None
    others: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def mean(self) -> MeanWithError:
        """Over rows."""
        return MeanWithError.of(self.log_likelihood)

    @property
    def decoder_runs(self) -> int:
        """Gradients of the generative network on the rows, their checks included; none for exact values."""
        return 0 if self.checked is None else self.checked.decoder_runs


def assess(
    vae: LatentModel,
    y: Tensor,
    *,
    pilot: Tensor | None = None,
    chains: int = 16,
    annealing: Annealing | None = None,
    extra: float = 6.0,
    samples: int = 5000,
    prior_samples: int = 100_000,
    bounds_examples: int = 100,
    tolerance: float = TOLERANCE,
    use_exact: bool = True,
    seed: int = 0,
) -> Assessment:
    """The log p(y) of rows y (N, D) that the pipeline reports, with its verdict.

    Exact values where there are any; otherwise annealing, of which every row is checked.

    Args:
        vae: The model.
        y: Rows.
        pilot: Rows on which step sizes are tuned, such as validation rows; 32 that the model generates by default.
        chains: Per row and run, at least 10.
        annealing: Temperatures and leapfrog steps.
        extra: What repeating disputed rows with more temperatures may cost, over the cost of the first runs.
        samples: Of importance sampling.
        prior_samples: Of prior sampling, and of a wider distribution of latents.
        bounds_examples: Simulated rows for the two-sided bounds.
        tolerance: In nats, that the mean can be trusted to.
        use_exact: Whether to ask for exact values; if not, annealing is held to the same rules where they are known.
        seed: Of all noise.

    Raises:
        ValueError: If a number is out of range, or a value of y is not one that the likelihood is for.
    """
    if not (extra >= 0 and tolerance > 0):
        raise ValueError(f"extra must be at least 0 and tolerance greater than 0; got {extra} and {tolerance}")
    y = vae.as_rows(y)
    if use_exact and exact_applies(vae) and not (found := exact(vae, y)).reason:
        return Assessment(found.log_likelihood, verdict("exact", None, tolerance), found)
    starts = tuned_starts(vae, pilot, annealing or Annealing(), seed=seed)
    missing = y.isnan() if y.isnan().any() else None
    simulated, z = simulated_rows(vae, bounds_examples, missing=missing, seed=seed)
    settings: dict[str, Any] = {"S": chains, "seed": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of prior sampling, which is not reported here
        by_prior, of_simulated_by_prior = (prior_sampling(vae, rows, prior_samples, seed=seed) for rows in (y, simulated))
    wide = prior_sampling(vae, y, prior_samples, widen=WIDE, seed=seed)
    others = {"importance sampling": importance_sampling(vae, y, samples, seed=seed)}
    others |= {"prior sampling": by_prior, "sampling from a wide prior": wide}
    checked = settle(_runs(vae, y, **settings), len(y), *starts, extra=extra, sampled=by_prior.or_better(wide))
    # nothing is gained by repeating simulated rows where others are not settled
    settling: dict[str, Any] = {
        "extra": extra * bool(checked.settled.all()),
        "tolerance": tolerance,
        "sampled": of_simulated_by_prior,
    }
    runs = _runs(vae, simulated, of="simulated rows, ", **settings), _runs(vae, simulated, z, **settings)
    bounds = settled_bounds(simulated, *runs, *starts, **settling)
    said = verdict("annealed", grounds_of(checked, bounds, others), tolerance)
    return Assessment(checked.estimate.log_likelihood, said, None, checked, bounds, others)


def _runs(vae: LatentModel, y: Tensor, z: Tensor | None = None, *, of: str = "", **settings: Any) -> Run:
    """Anneals rows, of whose streams' names ``of`` is the beginning; in reverse, where there are latents z that made them."""

    def run(stream: str, rows: Tensor, annealing: Annealing) -> Estimate:
        how: dict[str, Any] = {"annealing": annealing, "stream": of + stream, "ids": rows} | settings
        if z is None:
            return annealed_importance_sampling(vae, y[rows], **how)
        return reverse_annealing(vae, y[rows], z[rows], **how)

    return one_by_one(run)


def grounds_of(checked: Checked, bounds: Bounds, others: Mapping[str, Estimate], groups: Tensor | None = None) -> Grounds:
    """What the verdict on annealing of all rows rests on; rows are named by their positions.

    Args:
        checked: Annealing of N rows.
        bounds: On simulated rows.
        others: Other estimates of these rows, by name.
        groups: Of the rows, integers (N,), if those of one group may depend on each other.
    """
    disputed = (checked.level > 0) | ~checked.settled.cpu()
    units = torch.arange(len(disputed)) if groups is None else groups.cpu()
    count = len(units.unique())
    return Grounds(
        gap=bounds.gap,
        start_difference=MeanWithError.of(checked.start_difference, groups),
        temperature_difference=MeanWithError.of(checked.temperature_difference, groups),
        acceptance=checked.estimate.acceptance.mean(dim=1).tolist(),
        unreliable=checked.estimate.unreliable,
        unsettled=(~checked.settled).nonzero()[:, 0].tolist(),
        disputed=len(units[disputed].unique()),
        rows=count,
        looked_at=count,
        simulated_settled=bounds.settled_share,
        unit="rows" if groups is None else "groups",
        excess={name: excess(other.log_likelihood, checked.estimate.log_likelihood) for name, other in others.items()},
        surplus={name: surpluses(other, checked.estimate) for name, other in others.items()},
        rounding=checked.estimate.rounding.mean().item(),
        chains=checked.estimate.samples if checked.estimate.samples < LEAST_CHAINS else None,
    )
