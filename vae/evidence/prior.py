"""Prior sampling: the lecture's estimator."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.evidence.density import all_pairs
from vae.evidence.estimate import Advance, Estimate, ignore, require_samples
from vae.evidence.weights import LogWeights
from vae.noise import generator

if TYPE_CHECKING:
    from vae.latent_model import LatentModel

DRAWS, ROWS = 1024, 1024  # of one matrix product
LEAST_SAMPLES, NEAR_ONE = 10, 2.0  # when an effective sample size is worth a warning


@torch.no_grad()
def prior_sampling(vae: LatentModel, y: Tensor, S: int, *, seed: int = 0, advance: Advance = ignore) -> Estimate:
    """Log (1/S) sum_s p(y|z_s), z_s ~ p(z), by log-sum-exp (lecture #21, "Defining .log_likelihood").

    The S draws are shared by all examples, so the generative network runs S times, not N * S times, and for Gaussian and
    Bernoulli likelihoods the densities of all pairs are one matrix product: N * S * D multiplications. A lower bound of
    log p(y) in expectation; far off where the posterior is much narrower than the prior, which an effective sample size near 1
    gives away, and a warning. Use it to see the lecture's number, or in one or two latent dimensions.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Number of draws.
        seed: Of the draws.
        advance: Called with the number of draws done, for a progress bar.

    Raises:
        ValueError: If S is below 1, or a value of y is not finite.
    """
    require_samples(S)
    y = vae.as_rows(y)
    weights = LogWeights(len(y), S, y.device, tail=False, shared=True)
    pairs = all_pairs(vae.generative, y, _draws(vae, seed, 0))
    chunks = [slice(first, first + ROWS) for first in range(0, len(y), ROWS)]
    for block, start in enumerate(range(0, S, DRAWS)):
        z = _draws(vae, seed, block)[: S - start]
        for first, stop in list(weights.cuts(len(z))):
            score = pairs.at(z[first - start : stop - start])
            sums = [_log_sums(score(rows)) for rows in chunks]
            log_sum, log_sum_of_squares = (torch.cat(part) for part in zip(*sums, strict=True))
            weights.add_sums([(stop, log_sum + pairs.offset, log_sum_of_squares + 2 * pairs.offset)])
        advance(len(z))
    estimate = weights.estimate()
    _warn_if_far_off(estimate)
    return estimate


def _warn_if_far_off(estimate: Estimate) -> None:
    median = estimate.effective_sample_size.median().item()
    if estimate.samples >= LEAST_SAMPLES and median < NEAR_ONE:
        warnings.warn(
            f"prior sampling found about {median:.1f} draw of {estimate.samples:,} that explains an example (median effective "
            "sample size): its log-likelihood is far too low; use importance_sampling or annealed_importance_sampling",
            stacklevel=4,
        )


def _draws(vae: LatentModel, seed: int, block: int) -> Tensor:
    return vae.prior().sample((DRAWS,), generator(seed, "prior", block, device=vae.device))


def _log_sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum of weights and of their squares over (S, N) log weights, which are overwritten.

    Exponents are kept above half the smallest: denormal numbers are ten times slower, and these add nothing.
    """
    peak = x.amax(dim=0)
    x.sub_(peak).clamp_(min=math.log(torch.finfo(x.dtype).tiny) / 2).exp_()
    log_sum = x.sum(dim=0).double().log() + peak
    return log_sum, x.square_().sum(dim=0).double().log() + 2 * peak.double()
