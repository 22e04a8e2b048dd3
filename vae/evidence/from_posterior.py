"""Importance sampling from q(z|y)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.distributions.noise import DRAWS_PER_BLOCK, draws
from vae.evidence.density import paired
from vae.evidence.estimate import Advance, Estimate, example_ids, ignore, require_samples, rows_per_chunk
from vae.evidence.weights import LogWeights, require_rungs

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel


@torch.no_grad()
def importance_sampling(
    vae: LatentModel,
    y: Tensor,
    S: int,
    *,
    ladder: Sequence[int] = (),
    seed: int = 0,
    ids: Tensor | None = None,
    advance: Advance = ignore,
) -> Estimate:
    """Log (1/S) sum_s p(y|z_s) p(z_s) / q(z_s|y), z_s ~ q(z|y) (Burda et al. 2016, eq. 8).

    A lower bound of log p(y) in expectation, tighter as S grows; S = 1 is the sampled ELBO. N * S runs of the generative
    network, in memory that grows with neither. The estimator to use for every example; how far below log p(y) it stays,
    annealing tells.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Draws per example.
        ladder: Smaller numbers of samples to report as well, from the same draws: each divides the next, and the last divides
            S, which is always reported. By Jensen's inequality the ladder never decreases, for any example.
        seed: Of the draws.
        ids: Example ids, integers (N,), which address the noise; positions by default. An example's estimate depends on its
            values, its id and the seed, not on the other examples.
        advance: Called with the number of rows done, for a progress bar.

    Raises:
        ValueError: If S is below 1, rungs do not divide, there is not one id a row, or a value of y is not finite.
    """
    require_samples(S)
    require_rungs(ladder, S)
    y = vae.as_rows(y)
    ids = example_ids(ids, len(y))
    chunk = rows_per_chunk(vae, DRAWS_PER_BLOCK)
    parts = []
    for rows, their_ids in zip(y.split(chunk), ids.split(chunk), strict=True):
        weights = LogWeights(len(rows), S, y.device, rungs=(*(rung for rung in ladder if rung < S), S))
        q, prior, log_likelihood = vae.inference(rows), vae.prior(), paired(vae.generative, rows)
        for noise in draws(seed, "importance", their_ids, S, q.event_shape[0], like=rows):
            z = q.transform(noise)
            weights.add(log_likelihood(z) + prior.log_prob(z) - q.log_prob(z))
        parts.append(weights.estimate())
        advance(len(rows))
    return join(parts)


def join(parts: Sequence[Estimate]) -> Estimate:
    """The estimate of all examples from those of consecutive chunks of them."""
    first = parts[0]

    def joined(name: str) -> object:
        value = getattr(first, name)
        if isinstance(value, Tensor):
            return torch.cat([getattr(part, name) for part in parts], dim=-1)
        return {s: torch.cat([part.ladder[s] for part in parts]) for s in value} if name == "ladder" else value

    return Estimate(**{f.name: joined(f.name) for f in fields(Estimate)})  # type: ignore[arg-type]
