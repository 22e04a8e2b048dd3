"""The two conditional distributions of a VAE: q(z|y) and p(y|z), each a network with a head that returns a distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vae import likelihoods
from vae.distributions.latent import FullNormal, LatentDistribution
from vae.distributions.vectors import DiagonalNormal, VectorDistribution
from vae.errors import OptionError
from vae.model.convolutional import Decoder, Encoder
from vae.model.encoding import Encoding, Input
from vae.model.networks import Feedforward
from vae.options.architecture import Architecture, Shape
from vae.options.declaration import build
from vae.options.registry import LIKELIHOODS, as_built

Posterior = DiagonalNormal | FullNormal | LatentDistribution
FIRST_VALUES = 2**25  # that decide the output's bias: 256 MiB


class Inference(nn.Module):
    """The inference network: y -> q(z|y).

    Args:
        architecture: Of the network.
        data_dim: Number of columns D.
        posterior: Makes q(z|y) of what the network returns: see `vae.model.posteriors`.
        inputs: How each column goes in; as it is by default.
        shape: Of the image that a row is, for a convolutional architecture.

    Attributes:
        width: Numbers that the network gets of a row.

    Raises:
        OptionError: If there are not D inputs, or the architecture is not for such data.
    """

    def __init__(
        self,
        architecture: Architecture,
        data_dim: int,
        posterior: Any,
        inputs: Sequence[Input] | None = None,
        shape: Shape | None = None,
    ) -> None:
        super().__init__()
        if inputs is not None and len(inputs) != data_dim:
            raise OptionError(f"inputs must say how each of the {data_dim} columns goes in; got {len(inputs)}")
        self.encoding = None if inputs is None else Encoding(inputs)
        self.width = data_dim if self.encoding is None else self.encoding.width
        self.posterior = posterior
        self.network: Any
        if architecture.channels:
            self.network = Encoder(architecture, image_shape(shape, self.width), self.posterior.features)
        else:
            self.network = Feedforward(architecture, self.width, self.posterior.features)

    def forward(self, y: Tensor) -> Posterior:
        """q(z|y) for y of shape (..., D)."""
        q: Posterior = self.posterior(self.features(y))
        return q

    def features(self, y: Tensor) -> Tensor:
        """What the network makes of y, of which `posterior` makes q(z|y)."""
        features: Tensor = self.network(self.encode(y))
        return features

    def encode(self, y: Tensor) -> Tensor:
        """What the network gets of y (..., D), (..., `width`)."""
        return y if self.encoding is None else self.encoding(y)

    def may_miss(self, y: Tensor) -> Tensor:
        """Whether each column of y (..., D) may be missing, shape (D,)."""
        columns = [False] * y.shape[-1] if self.encoding is None else [column.missing for column in self.encoding.inputs]
        return torch.tensor(columns, device=y.device)


class Generative(nn.Module):
    """The generative network and the likelihood: z -> p(y|z).

    Args:
        architecture: Of the network.
        latent_dim: Latent dimensions that the network gets: the first ones, where there are more.
        data_dim: Number of columns D.
        likelihood: Name and options of p(y|z), an entry of `vae.options.registry.LIKELIHOODS`.
        shape: Of the image that a row is, for a convolutional architecture.
    """

    def __init__(
        self,
        architecture: Architecture,
        latent_dim: int,
        data_dim: int,
        likelihood: Mapping[str, Any],
        shape: Shape | None = None,
    ) -> None:
        super().__init__()
        self.likelihood = build_likelihood(likelihood, data_dim)
        self.latent_dim, self._maps = latent_dim, architecture.widest(shape)
        self.network: Any
        if architecture.channels:
            if isinstance(self.likelihood, likelihoods.Mixed):
                raise OptionError(
                    "channels need all columns to have the same likelihood, and no missing values; got mixed ones"
                )
            self.network = Decoder(architecture, latent_dim, image_shape(shape, data_dim), self.likelihood.features)
        else:
            self.network = Feedforward(architecture, latent_dim, self.likelihood.outputs(data_dim))

    @property
    def widest(self) -> int:
        """The most numbers that a layer has for one latent."""
        layers = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        return max(self._maps, *(layer.out_features for layer in layers))

    def forward(self, z: Tensor) -> VectorDistribution:
        """p(y|z) for z of shape (..., K)."""
        return self.likelihood(self.network(self.reads(z)))

    def features(self, z: Tensor) -> Tensor:
        """What the network makes of z, of which `likelihood` makes p(y|z)."""
        features: Tensor = self.network(self.reads(z))
        return features

    def reads(self, z: Tensor) -> Tensor:
        """The coordinates of z that the network gets: the layer next to the data."""
        return z[..., : self.latent_dim]

    @torch.no_grad()
    def initialize(self, y: Tensor) -> None:
        """Set the output's bias so that p(y|z) begins near the distribution of each column of rows y (N, D), whatever z is.

        As Burda et al. (2016) did for Bernoulli data. All pixels of a channel together, where the network is convolutional.
        """
        first = y[: max(1, FIRST_VALUES // y.shape[1])].cpu().double()
        bias = self.network.last.bias
        bias.copy_(self.likelihood.initial_outputs(self.network.pooled(first)))


def image_shape(shape: Shape | None, width: int) -> Shape:
    """Height, width and channels of images of so many numbers.

    Raises:
        OptionError: If they are not that of such images.
    """
    if shape is None or math.prod(shape) != width:
        raise OptionError(
            f"channels are for images whose numbers all go into the network as they are: shape (height, width, channels) must "
            f"have {width} numbers; got {shape}"
        )
    return shape


def build_likelihood(likelihood: Mapping[str, Any], data_dim: int) -> likelihoods.Likelihood:
    """The likelihood of D columns from its name and options; ``mixed`` has such options for each column.

    Raises:
        OptionError: If a name is unknown, or an option out of its range.
    """
    if likelihood["name"] == "mixed":
        return likelihoods.Mixed(data_dim, likelihood["columns"], build_likelihood)
    built: likelihoods.Likelihood = build("likelihood", LIKELIHOODS, likelihoods, as_built(likelihood), data_dim)
    return built
