"""q(z|y): modules that turn the inference network's output into a distribution over the latent."""

from __future__ import annotations

from torch import Tensor, nn

from vae.distributions import DiagonalNormal


class DiagonalGaussian(nn.Module):
    """N(mu_v(y), diag(sigma_v(y)^2)) from means and log standard deviations, (..., 2 * K) -> event shape (K,)."""

    features = 2

    def forward(self, f: Tensor) -> DiagonalNormal:
        """q(z|y) from the network output ``f``."""
        mean, log_stddev = f.chunk(2, dim=-1)
        return DiagonalNormal(mean, log_stddev.exp())
