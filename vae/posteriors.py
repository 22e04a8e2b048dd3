"""q(z|y): modules that turn the inference network's output into a distribution over the latent."""

from __future__ import annotations

from torch import Tensor, nn

from vae.distributions import DiagonalNormal


class DiagonalGaussian(nn.Module):
    """N(mu_v(y), diag(sigma_v(y)^2)) from (..., 2 * K) -> event shape (K,).

    The first half are the means. The second half s gives the standard deviations: e^s up to 1, and its tangent 1 + s from
    there on. A network goes on nearly linearly beyond its training rows, so that with e^s a single outlier among the
    validation rows could have a standard deviation of 10^12, and an ELBO to match.
    """

    features = 2

    def forward(self, f: Tensor) -> DiagonalNormal:
        """q(z|y) from the network output ``f``."""
        mean, s = f.chunk(2, dim=-1)
        return DiagonalNormal(mean, s.clamp(max=0).exp() + s.relu())
