"""What q(z|y) over some rows tells of each latent dimension: whether it is in use, and how many nats it costs."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import kl_divergence

from vae.distributions.vectors import DiagonalNormal, VectorDistribution

ACTIVE = 0.01  # variance of the posterior mean over rows, beyond which a dimension is in use


def mean_variance(mean: Tensor) -> Tensor:
    """Variance over rows of the posterior means E_q[z_k] (N, K), shape (K,); a dimension in use has more than `ACTIVE`.

    From Burda et al. 2016 ("Importance weighted autoencoders", section 5.2).
    """
    return mean.var(dim=0, correction=min(1, len(mean) - 1))


def kl_by_dimension(q: VectorDistribution, prior: VectorDistribution) -> Tensor | None:
    """KL(q(z_k|y) || p(z_k)) in nats, shape (N, K); None where q or the prior does not factorise over dimensions."""
    if isinstance(q, DiagonalNormal) and isinstance(prior, DiagonalNormal):
        return kl_divergence(q.base_dist, prior.base_dist)
    return None
