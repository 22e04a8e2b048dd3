"""Invertible maps by zuko's neural spline flows, in couplings: both directions cost the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import zuko
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import override

from vae.distributions.latent import LatentDistribution, normal_log_prob

BINS = 8
MOMENT_DRAWS, MOMENTS_AT_ONCE = 256, 32
MOMENTS_SEED = 0


class Flow(nn.Module):
    """z <-> noise, both (..., K), by rational-quadratic splines in couplings (Durkan et al. 2019, "Neural spline flows").

    A spline maps [-5, 5] to itself and is the identity outside, so that the tails are those of the noise.

    Args:
        latent_dim: K.
        transforms: Couplings one after the other, whose halves take turns.
        hidden: Widths of the network of each.
        context: Numbers that the map depends on.
    """

    def __init__(self, latent_dim: int, transforms: int, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        with torch.device("cpu"):  # zuko's masks cannot be made without values
            self.flow = zuko.flows.NSF(
                latent_dim, context, bins=BINS, transforms=transforms, hidden_features=tuple(hidden), passes=2
            )
        self.widest = max(*hidden, latent_dim * (3 * BINS - 1))

    @override
    def forward(self, x: Tensor, context: Tensor | None = None, *, to_noise: bool = True) -> tuple[Tensor, Tensor]:
        """The image of ``x``, and log |its derivative| (...); of noise with ``to_noise=False``."""
        transform = self.flow(context).transform
        image, log_derivative = (transform if to_noise else transform.inv).call_and_ladj(x)
        return image, log_derivative


class Transported(LatentDistribution):
    """What a flow makes of standard normal noise, moved and stretched: z = mean + stddev * flow^-1(noise).

    Args:
        flow: The map.
        location: Shape (..., K).
        stretch: Positive, (..., K).
        context: Of the flow, (..., C), or None.
        weights: Of the flow, by name, in place of its own.
    """

    def __init__(
        self,
        flow: Flow,
        location: Tensor,
        stretch: Tensor,
        context: Tensor | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(location.shape)
        self._flow, self._location, self._stretch, self._context = flow, location, stretch, context
        self._weights = dict(weights or {})

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...)."""
        noise, log_derivative = self._map((value - self._location) / self._stretch, to_noise=True)
        return normal_log_prob(noise) + log_derivative - self._stretch.log().sum(dim=-1)

    @override
    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape (..., K) as draws, differentiably."""
        image, _ = self._map(noise, to_noise=False)
        return self._location + self._stretch * image

    @override
    def detach(self) -> Transported:
        """The same distribution, through whose parameters, the flow's among them, no gradient passes."""
        weights = {name: weight.detach() for name, weight in self._flow.named_parameters()}
        context = None if self._context is None else self._context.detach()
        return Transported(self._flow, self._location.detach(), self._stretch.detach(), context, weights)

    @property
    @override
    def extent(self) -> tuple[Tensor, Tensor]:
        """As beyond [-5, 5] the flow is the identity, a box that holds the noise holds its images."""
        return self._location, self._stretch

    def _map(self, x: Tensor, *, to_noise: bool) -> tuple[Tensor, Tensor]:
        if self._context is None:
            arguments: tuple[Tensor, ...] = (x,)
        else:
            arguments = (x, self._context.expand(*x.shape[:-1], -1))
        image: tuple[Tensor, Tensor] = functional_call(self._flow, self._weights, arguments, {"to_noise": to_noise})
        return image

    @override
    @torch.no_grad()
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance by 256 draws in pairs of opposite signs, the same for all, to about a tenth of a stddev."""
        random = torch.Generator().manual_seed(MOMENTS_SEED)
        half = torch.randn(MOMENT_DRAWS // 2, self.event_shape[0], generator=random, dtype=torch.float64)
        noise = torch.cat([half, -half]).to(self._location)
        noise = noise.reshape(-1, *[1] * (self._location.ndim - 1), self.event_shape[0])
        total, squares = torch.zeros_like(self._location), torch.zeros_like(self._location)
        for draws in noise.split(MOMENTS_AT_ONCE):
            image = self._map(draws.expand(-1, *self._location.shape), to_noise=False)[0]
            total, squares = total + image.sum(dim=0), squares + image.square().sum(dim=0)
        mean = total / MOMENT_DRAWS
        variance = squares / MOMENT_DRAWS - mean.square()
        return self._location + self._stretch * mean, self._stretch.square() * variance
