"""Importance sampling from q(z|y)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.evidence.estimate import Estimate, LogWeights, example_ids, require_samples, rows_per_chunk
from vae.noise import DRAWS_PER_BLOCK, per_example

if TYPE_CHECKING:
    from vae.model import VAE


@torch.no_grad()
def importance_sampling(vae: VAE, y: Tensor, S: int, *, seed: int = 0, ids: Tensor | None = None) -> Estimate:
    """Log (1/S) sum_s p(y|z_s) p(z_s) / q(z_s|y), z_s ~ q(z|y) (Burda et al. 2016, eq. 8).

    A lower bound of log p(y) in expectation, tighter as S grows; S = 1 is the sampled ELBO.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Draws per example.
        seed: Of the draws.
        ids: Example ids, integers (N,), which address the noise; positions by default. An example's estimate depends on its
            values, its id and the seed, not on the other examples.

    Raises:
        ValueError: If S is below 1, or there is not one id a row.
    """
    require_samples(S)
    ids = example_ids(ids, len(y))
    weights = LogWeights(len(y), y.device)
    chunk = rows_per_chunk(vae, DRAWS_PER_BLOCK)
    for first in range(0, len(y), chunk):
        rows = slice(first, first + chunk)
        for log_weights in _blocks(vae, y[rows], S, seed, ids[rows]):
            weights.add(log_weights, rows)
    return weights.estimate(S)


def _blocks(vae: VAE, y: Tensor, S: int, seed: int, ids: Tensor) -> Iterator[Tensor]:
    """Log weights (S', N) of consecutive blocks of draws."""
    q, prior = vae.inference(y), vae.prior()
    latent_dim = q.event_shape[0]
    for block, start in enumerate(range(0, S, DRAWS_PER_BLOCK)):
        z = q.transform(per_example(seed, "importance", ids, block, latent_dim, like=y)[: S - start])
        yield vae.generative(z).log_prob(y) + prior.log_prob(z) - q.log_prob(z)
