"""The two conditional distributions of a VAE: q(z|y) and p(y|z), each a network with a head that returns a distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vae import likelihoods
from vae.distributions import DiagonalNormal, VectorDistribution
from vae.networks import Architecture, Feedforward
from vae.posteriors import DiagonalGaussian
from vae.registry import LIKELIHOODS, lookup


class Inference(nn.Module):
    """The inference network: y -> q(z|y)."""

    def __init__(self, architecture: Architecture, data_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.network = Feedforward(architecture, data_dim, DiagonalGaussian.features * latent_dim)
        self.posterior = DiagonalGaussian()

    def forward(self, y: Tensor) -> DiagonalNormal:
        """q(z|y) for y of shape (..., D)."""
        return self.posterior(self.network(y))


class Generative(nn.Module):
    """The generative network and the likelihood: z -> p(y|z)."""

    def __init__(self, architecture: Architecture, latent_dim: int, data_dim: int, likelihood: Mapping[str, Any]) -> None:
        super().__init__()
        options = dict(likelihood)
        entry = lookup("likelihood", LIKELIHOODS, options.pop("name"))
        self.likelihood: likelihoods.Likelihood = entry.build(likelihoods, data_dim, **options)
        self.network = Feedforward(architecture, latent_dim, self.likelihood.features * data_dim)

    def forward(self, z: Tensor) -> VectorDistribution:
        """p(y|z) for z of shape (..., K)."""
        return self.likelihood(self.network(z))
