"""Two-sided bounds on data that the model itself generates: bidirectional Monte Carlo (BDMC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vae.distributions.noise import generator
from vae.evidence.annealing.annealed import annealed_importance_sampling, reverse_annealing
from vae.evidence.annealing.temperatures import Annealing
from vae.evidence.estimate import Advance, Estimate, MeanWithError, ignore, require_samples
from vae.evidence.from_posterior import join
from vae.evidence.verdict.checked import FACTOR, Chains, Run, settle

if TYPE_CHECKING:
    from vae.model.latent_model import Generated, LatentModel


@dataclass(frozen=True)
class Bounds:
    """Bounds of log p(y) for N simulated rows, in expectation.

    Attributes:
        y: The rows, (N, D); NaN where a value is missing.
        lower: By annealing forward.
        upper: By annealing in reverse, from the latents that made the rows.
        settled: Which rows' checks agree, (N,), where they were checked as test rows are; None where they were not.
        decoder_runs: Gradients of the generative network, where they were.
        upper_repeated: Whether the upper bounds were drawn anew, as the first were too loose; see `settled_bounds`.
    """

    y: Tensor
    lower: Estimate
    upper: Estimate
    settled: Tensor | None = None
    decoder_runs: int = 0
    upper_repeated: bool = False

    @property
    def gap(self) -> MeanWithError:
        """Upper minus lower, paired over examples. A sampled gap may be negative and is not clipped.

        Over the settled rows: the others' checks tell already. Over all, where none is settled, or none was checked.
        """
        gaps = self.upper.log_likelihood - self.lower.log_likelihood
        return MeanWithError.of(gaps if self.settled is None or not self.settled.any() else gaps[self.settled])

    @property
    def settled_share(self) -> float:
        """The share of the rows that are settled; 1 where they were not checked."""
        return 1.0 if self.settled is None else self.settled.double().mean().item()


def bidirectional_bounds(
    vae: LatentModel,
    N: int = 100,
    S: int = 16,
    *,
    annealing: Annealing | None = None,
    missing: Tensor | None = None,
    seed: int = 0,
    advance: Advance = ignore,
) -> Bounds:
    """Sandwich log p(y) of N simulated rows between forward and reverse annealing (Grosse, Ghahramani and Adams 2015).

    In expectation lower <= log p(y) <= upper, so the gap bounds the error of annealing on data like the model's own; it says
    nothing of rows that the model finds unlikely. Give ``annealing`` tuned step sizes to examine the procedure that scored the
    test rows.

    Args:
        vae: The model.
        N: Rows to simulate.
        S: Chains per row and direction.
        annealing: As in `annealed_importance_sampling`.
        missing: Which values other rows lack, booleans (M, D): each simulated row gets the gaps of one of them, at random. The
            latent that made a row is an exact draw from its posterior given what is left, too. None: complete rows.
        seed: Of the rows and of the noise.
        advance: Called with the number of (row, temperature) pairs done, 2 * N * temperatures in all.

    Raises:
        ValueError: If N or S is below 1, a setting is out of range, ``missing`` has another shape, or the model takes no gaps.
    """
    y, z = simulated_rows(vae, N, missing=missing, seed=seed)
    forward = annealed_importance_sampling(vae, y, S, annealing=annealing, seed=seed, stream="bounds", advance=advance)
    return Bounds(y, forward, reverse_annealing(vae, y, z, S, annealing=annealing, seed=seed, advance=advance))


def settled_bounds(
    y: Tensor,
    forward: Run,
    reverse: Run,
    posterior: Annealing,
    prior: Annealing,
    *,
    extra: float,
    tolerance: float,
    sampled: Estimate | None = None,
) -> Bounds:
    """`bidirectional_bounds` of rows that are checked and repeated as test rows are, to examine all of the procedure.

    Each row's upper bound takes the start and as many temperatures as its lower bound at last did. As the judges alone decide
    on that, both remain bounds in expectation. Any upper bound serves to examine a lower one, but a loose one refuses it in
    vain: where the gap is not within the tolerance, upper bounds are drawn anew with `FACTOR` times the temperatures, from the
    start that the judges found better. Lower bounds, which are what is examined, stay as they are.

    Args:
        y: Simulated rows, (N, D).
        forward: Anneals rows; see `settle`.
        reverse: Anneals rows in reverse.
        posterior: How to anneal from q, with step sizes.
        prior: How to anneal from the prior, likewise.
        extra: What repetitions may cost, over the cost of the first runs.
        tolerance: In nats, that the gap should be within.
        sampled: Of these rows by sampling from the prior; see `settle`.
    """
    checked = settle(forward, len(y), posterior, prior, extra=extra, sampled=sampled)

    def upper(role: str, at_prior: Tensor, times: int) -> tuple[Estimate, int]:
        asked = list[Chains]()
        for level, from_prior in product(checked.level.unique().tolist(), (False, True)):
            if len(rows := ((checked.level == level) & (at_prior == from_prior)).nonzero()[:, 0]):
                start, factor = prior if from_prior else posterior, times * FACTOR**level
                longer = replace(start, temperatures=start.temperatures * factor)
                asked.append(Chains(f"{role}, {factor} times as long" if factor > 1 else role, rows, longer))
        return _joined(asked, reverse(asked))

    estimate, runs = upper("in reverse", checked.at_prior, 1)
    bounds = Bounds(y, checked.estimate, estimate, checked.settled, checked.decoder_runs + runs)
    if bounds.gap.within(tolerance) or extra < FACTOR:
        return bounds
    estimate, runs = upper("in reverse again", checked.at_prior ^ checked.to_change, FACTOR)
    return replace(bounds, upper=estimate, decoder_runs=bounds.decoder_runs + runs, upper_repeated=True)


def _joined(asked: Sequence[Chains], parts: Sequence[Estimate]) -> tuple[Estimate, int]:
    """The estimate of all rows from parts in any order, and its cost; without acceptance, as ranges go by temperatures."""
    estimate = join([replace(part, acceptance=part.acceptance[:0]) for part in parts])
    runs = sum(len(rows) * estimate.samples * how.temperatures * how.leapfrog_steps for _, rows, how in asked)
    return estimate.of(torch.cat([rows for _, rows, _ in asked]).argsort()), runs


def simulated_rows(vae: LatentModel, N: int, *, missing: Tensor | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """N rows (N, D) that the model generates, and the latents (N, K) that made them; see `bidirectional_bounds`."""
    require_samples(N, "simulated rows")
    y, _, z = cast("Generated", vae.generate(N, seed=seed, full=True))
    if missing is None:
        return y, z
    D = y.shape[1]
    if missing.shape[1:] != (D,) or not len(missing) or missing.dtype != torch.bool:
        raise ValueError(
            f"missing must be booleans of shape (M, {D}), the gaps of at least one row; got {missing.dtype} of shape "
            f"{tuple(missing.shape)}; y.isnan() of the rows that were scored is such a mask"
        )
    drawn = torch.randint(len(missing), (len(y),), generator=generator(seed, "gaps of simulated rows"))
    return y.masked_fill(missing[drawn.to(missing.device)].to(y.device), torch.nan), z
