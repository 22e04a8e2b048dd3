"""Prior sampling: the lecture's estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.evidence.estimate import Estimate, LogWeights, require_samples, rows_per_chunk
from vae.noise import DRAWS_PER_BLOCK, generator

if TYPE_CHECKING:
    from vae.model import VAE


@torch.no_grad()
def prior_sampling(vae: VAE, y: Tensor, S: int, *, seed: int = 0) -> Estimate:
    """Log (1/S) sum_s p(y|z_s), z_s ~ p(z), by log-sum-exp (lecture #21, "Defining .log_likelihood").

    The S draws are shared by all examples, so the generative network runs S times, not N * S times. A lower bound of
    log p(y) in expectation; far off where the posterior is much narrower than the prior, which a small effective sample size
    gives away.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Number of draws.
        seed: Of the draws.

    Raises:
        ValueError: If S is below 1.
    """
    require_samples(S)
    weights = LogWeights(len(y), y.device)
    chunk = rows_per_chunk(vae, DRAWS_PER_BLOCK)
    for block, start in enumerate(range(0, S, DRAWS_PER_BLOCK)):
        noise = generator(seed, "prior", block, device=y.device)
        z = vae.prior().sample((DRAWS_PER_BLOCK, 1), noise)[: S - start]
        p = vae.generative(z)
        for first in range(0, len(y), chunk):
            rows = slice(first, first + chunk)
            weights.add(p.log_prob(y[rows]), rows)
    return weights.estimate(S)
