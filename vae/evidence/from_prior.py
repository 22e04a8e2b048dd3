"""Prior sampling: the lecture's estimator."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.distributions.noise import generator
from vae.distributions.vectors import DiagonalNormal
from vae.evidence.density import all_pairs
from vae.evidence.estimate import Advance, Estimate, ignore, require_samples
from vae.evidence.weights import LogWeights

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

DRAWS, ROWS = 1024, 1024  # of one matrix product
LEAST_SAMPLES, NEAR_ONE = 10, 2.0  # when an effective sample size is worth a warning


@torch.no_grad()
def prior_sampling(
    vae: LatentModel, y: Tensor, S: int, *, widen: float | None = None, seed: int = 0, advance: Advance = ignore
) -> Estimate:
    """Log (1/S) sum_s p(y|z_s), z_s ~ p(z), by log-sum-exp (lecture #21, "Defining .log_likelihood").

    The S draws are shared by all examples, so the generative network runs S times, not N * S times, and for Gaussian and
    Bernoulli likelihoods the densities of all pairs are one matrix product: N * S * D multiplications. A lower bound of
    log p(y) in expectation; far off where the posterior is much narrower than the prior, which an effective sample size near 1
    gives away, and a warning. Use it to see the lecture's number, or in one or two latent dimensions.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Number of draws.
        widen: Draw from a normal distribution instead, with the prior's means and so many times its standard deviations, and
            weigh by p(z) over its density. With 3 it finds what lies in the prior's tails, in a few latent dimensions.
        seed: Of the draws.
        advance: Called with the number of draws done, for a progress bar.

    Raises:
        ValueError: If S is below 1, or a value of y is not finite.
    """
    require_samples(S)
    y = vae.as_rows(y)
    weights = LogWeights(len(y), S, y.device, tail=False, shared=True)
    draws = _Draws(vae, widen, seed)
    pairs = all_pairs(vae.generative, y, draws.block(0)[0])
    chunks = [slice(first, first + ROWS) for first in range(0, len(y), ROWS)]
    for block, start in enumerate(range(0, S, DRAWS)):
        z, log_weights = (drawn[: S - start] for drawn in draws.block(block))
        for first, stop in list(weights.cuts(len(z))):
            part = slice(first - start, stop - start)
            density, added = pairs.at(z[part]), log_weights[part, None]
            sums = [_log_sums(density(rows) if widen is None else density(rows) + added) for rows in chunks]
            log_sum, log_sum_of_squares = (torch.cat(parts) for parts in zip(*sums, strict=True))
            weights.add_sums([(stop, log_sum + pairs.offset, log_sum_of_squares + 2 * pairs.offset)])
        advance(len(z))
    estimate = weights.estimate()
    median = estimate.effective_sample_size.median().item()
    if widen is None and estimate.samples >= LEAST_SAMPLES and median < NEAR_ONE:
        warnings.warn(
            f"prior sampling found about {median:.1f} draw of {estimate.samples:,} that explains an example (median effective "
            "sample size): its log-likelihood is far too low; use importance_sampling or annealed_importance_sampling",
            stacklevel=3,
        )
    return estimate


class _Draws:
    """Latents from the prior, or from a normal distribution that is wider, in blocks."""

    def __init__(self, vae: LatentModel, widen: float | None, seed: int) -> None:
        self.prior, self.seed, self.device = vae.prior(), seed, vae.device
        self.wide = widen and DiagonalNormal(self.prior.mean, widen * self.prior.stddev)

    def block(self, number: int) -> tuple[Tensor, Tensor]:
        """Latents (S, K), and log p(z) minus the log density that they come from, (S,)."""
        if not self.wide:
            z = self.prior.sample((DRAWS,), generator(self.seed, "prior", number, device=self.device))
            return z, z.new_zeros(len(z))
        z = self.wide.sample((DRAWS,), generator(self.seed, "wide", number, device=self.device))
        return z, self.prior.log_prob(z) - self.wide.log_prob(z)


def _log_sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the sum of weights and of their squares over (S, N) log weights, which are overwritten.

    Exponents are kept above half the smallest: denormal numbers are ten times slower, and these add nothing.
    """
    peak = x.amax(dim=0)
    x.sub_(peak).clamp_(min=math.log(torch.finfo(x.dtype).tiny) / 2).exp_()
    log_sum = x.sum(dim=0).double().log() + peak
    return log_sum, x.square_().sum(dim=0).double().log() + 2 * peak.double()
