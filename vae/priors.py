"""p(z): modules that return the prior distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vae.distributions import DiagonalNormal


class StandardNormal(nn.Module):
    """N(0, I) over K latent dimensions."""

    mean: Tensor
    stddev: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("stddev", torch.ones(latent_dim), persistent=False)

    def forward(self) -> DiagonalNormal:
        """p(z), with event shape (K,)."""
        return DiagonalNormal(self.mean, self.stddev)
