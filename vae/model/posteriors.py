"""q(z|y): modules that turn the inference network's output into a distribution over the latent.

Each is one class, and one entry in `vae.options.registry.POSTERIORS`. ``features`` is how many outputs of the network it is
made from, ``normal`` whether it is a normal distribution, ``factorizes`` whether its dimensions are independent, and
``widest`` how many numbers its density needs for each latent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vae.distributions.flows import Flow, Transported
from vae.distributions.latent import FullNormal
from vae.distributions.vectors import DiagonalNormal
from vae.options.registry import ConditionalCouplings


def as_stddev(s: Tensor) -> Tensor:
    """Standard deviations from any numbers s: e^s up to 1, and its tangent 1 + s from there on.

    A network goes on nearly linearly beyond its training rows, so that with e^s a single outlier among the validation rows
    could have a standard deviation of 10^12, and an ELBO to match.
    """
    stddev: Tensor = StandardDeviation.apply(s)
    return stddev


class StandardDeviation(torch.autograd.Function):
    """`as_stddev`, whose derivative is itself up to 1, and 1 from there on."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        """Standard deviations of the shape of s."""
        stddev = s.clamp(max=0).exp_().add_(s.relu())
        ctx.save_for_backward(stddev)
        return stddev

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient by s."""
        (stddev,) = ctx.saved_tensors
        return gradient * stddev.clamp(max=1)


class DiagonalGaussian(nn.Module):
    """N(mu_v(y), diag(sigma_v(y)^2)) from (..., 2 * K) -> event shape (K,): the means, then sigma by `as_stddev`."""

    normal, factorizes = True, True

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.features, self.widest = 2 * latent_dim, latent_dim

    def forward(self, f: Tensor) -> DiagonalNormal:
        """q(z|y) from the network output ``f``."""
        mean, s = f.chunk(2, dim=-1)
        return DiagonalNormal(mean, as_stddev(s))


class FullCovarianceGaussian(nn.Module):
    """N(mu, L L'), L lower triangular (Kingma and Welling 2019, "An introduction to variational autoencoders", algorithm 2).

    From (..., 2 * K + K * (K - 1) / 2) -> event shape (K,): the means, the diagonal of L by `as_stddev`, and what is below it,
    row by row.
    """

    places: Tensor
    normal, factorizes = True, False

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        below = [(i, j) for i in range(latent_dim) for j in range(i)]
        self.features, self.widest = 2 * latent_dim + len(below), latent_dim**2
        places = torch.zeros(len(below), latent_dim, latent_dim)
        for number, place in enumerate(below):
            places[number][place] = 1.0
        self.register_buffer("places", places, persistent=False)

    def forward(self, f: Tensor) -> FullNormal:
        """q(z|y) from the network output ``f``."""
        K = self.latent_dim
        mean, s, below = f.split([K, K, self.features - 2 * K], dim=-1)
        return FullNormal(mean, as_stddev(s).diag_embed() + torch.tensordot(below, self.places, dims=1))


class FlowPosterior(nn.Module):
    """Noise through a flow that depends on y, stretched and moved (Rezende and Mohamed 2015; splines, Durkan et al. 2019).

    From (..., 2 * K + C) -> event shape (K,): the locations, the stretches by `as_stddev`, and the flow's context.

    Args:
        latent_dim: K.
        options: `ConditionalCouplings`, C among them.
    """

    normal, factorizes = False, False

    def __init__(self, latent_dim: int, **options: Any) -> None:
        super().__init__()
        couplings = ConditionalCouplings(**options)
        self.latent_dim = latent_dim
        self.flow = Flow(latent_dim, couplings.transforms, couplings.hidden, couplings.context)
        self.features, self.widest = 2 * latent_dim + couplings.context, self.flow.widest

    def forward(self, f: Tensor) -> Transported:
        """q(z|y) from the network output ``f``."""
        location, s, context = f.split([self.latent_dim, self.latent_dim, self.features - 2 * self.latent_dim], dim=-1)
        return Transported(self.flow, location, as_stddev(s), context)
