"""What a model does with its latent dimensions, over a set of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.model.usage import kl_by_dimension, mean_variance

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

THRESHOLDS = (0.001, 0.01, 0.1)
ENOUGH_ROWS = 10_000  # to know a dimension by: the cost of an aggregate posterior is its rows times points
GRID, LARGEST_GRID = 2001, 100_000  # points; more would be needed for components narrower than 1 / 25,000 of their range


@dataclass(frozen=True)
class Latents:
    """Per latent dimension k, each of shape (K,), float64.

    Attributes:
        mean_variance: Variance over rows of the posterior mean E_q[z_k].
        kl: Mean over rows of KL(q(z_k|y) || p(z_k)) in nats; None where q or the prior does not factorise.
        aggregate_mean: Mean of the aggregate posterior, the average of q(z_k|y) over rows.
        aggregate_variance: Its variance.
        marginal_kl: KL(aggregate posterior of z_k || p(z_k)) in nats; None where q or the prior does not factorise, NaN where
            its components are too narrow for a grid.
    """

    mean_variance: Tensor
    kl: Tensor | None
    aggregate_mean: Tensor
    aggregate_variance: Tensor
    marginal_kl: Tensor | None

    @property
    def active_units(self) -> dict[float, int]:
        """Dimensions whose posterior mean varies by more than a threshold (Burda et al. 2016, section 5.2: 0.01)."""
        return {threshold: int((self.mean_variance > threshold).sum()) for threshold in THRESHOLDS}


@torch.no_grad()
def latent_usage(vae: LatentModel, y: Tensor) -> Latents:
    """Which latent dimensions the model uses, and how far the aggregate posterior is from the prior, over rows y (N, D).

    Raises:
        ValueError: If a value of y is not finite.
    """
    q, prior = vae.inference(vae.as_rows(y)), vae.prior()
    kl, marginal_kl = kl_by_dimension(q, prior), None
    mean, variance = q.mean.double(), q.variance.double()
    if kl is not None:
        components = zip(mean.T, variance.sqrt().T, prior.mean.double(), prior.stddev.double(), strict=True)
        marginal_kl = torch.stack([_mixture_kl(*component) for component in components])
    aggregate_variance = variance.mean(dim=0) + mean.var(dim=0, correction=0)
    return Latents(
        mean_variance=mean_variance(mean),
        kl=None if kl is None else kl.double().mean(dim=0),
        aggregate_mean=mean.mean(dim=0),
        aggregate_variance=aggregate_variance,
        marginal_kl=marginal_kl,
    )


def _mixture_kl(mean: Tensor, stddev: Tensor, prior_mean: Tensor, prior_stddev: Tensor) -> Tensor:
    """KL of a mixture of N(mean_n, stddev_n^2), equally weighted, from a normal distribution, by the trapezoidal rule."""
    low, high = (mean - 8 * stddev).min(), (mean + 8 * stddev).max()
    count = max(GRID, int(4 * ((high - low) / stddev.min()).item()))
    if count > LARGEST_GRID:
        return torch.full((), math.nan, dtype=torch.float64, device=mean.device)
    z = torch.linspace(low.item(), high.item(), count, dtype=torch.float64, device=mean.device)
    parts = []
    for points in z.split(64):
        log_densities = -0.5 * ((points[:, None] - mean) / stddev).square() - stddev.log() - math.log(2 * math.pi) / 2
        parts.append(log_densities.logsumexp(dim=1) - math.log(len(mean)))
    log_mixture = torch.cat(parts)
    log_prior = -0.5 * ((z - prior_mean) / prior_stddev).square() - prior_stddev.log() - math.log(2 * math.pi) / 2
    return torch.trapezoid(log_mixture.exp() * (log_mixture - log_prior), z)
