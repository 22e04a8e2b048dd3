"""Hierarchies of latents with known answers: linear-Gaussian chains, and what their networks return by numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from torch import nn

from tests.anchors import set_affine
from vae import VAE

Array = NDArray[np.float64]


class LinearChain:
    """A hierarchy of affine networks with constant standard deviations, so that y and all latents are jointly normal.

    Args:
        name: Of the hierarchy.
        sizes: Latent dimensions of the layers. If all are 1, q(z|y) is the posterior; otherwise of its width, or the prior's.
        widen: Factor on the standard deviations of the posterior's conditionals.
        variance: Of the data, given z.
        tight: Factor on the standard deviations of a layer given the one above.
        N: Rows that are drawn from it.
    """

    def __init__(
        self, name: str, sizes: tuple[int, ...], widen: float = 1.0, variance: float = 0.5, tight: float = 1.0, N: int = 6
    ) -> None:
        self.rng, self.sizes, self.variance, D = np.random.default_rng(0), sizes, variance, 3
        hierarchy = {"name": name, "hidden": [[]] * (len(sizes) - 1)}
        likelihood = {"name": "gaussian", "variance": self.variance}
        parts: dict[str, Any] = {"likelihood": likelihood, "hierarchy": hierarchy}
        self.vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=D, latent_dim=sizes, **parts).double()
        self._generative(tight)
        if name == "bottom_up":
            self._bottom_up(widen)
        elif set(sizes) == {1}:
            self._ladder(widen)
        else:
            self._vague_ladder()
        noise = self.rng.normal(size=(N, self.of_noise["y"].shape[1]))
        self.y = torch.tensor(noise @ self.of_noise["y"].T + self.mean["y"])

    def _generative(self, tight: float) -> None:
        """Random networks; what each variable is of the noise of all, and its mean."""
        D, L = self.vae.card.data_dim, len(self.sizes)
        first = np.cumsum([0, *self.sizes])
        eye = np.eye(first[-1] + D)
        self.of_noise: dict[Any, Array] = {L: eye[first[-2] : first[-1]]}
        self.mean: dict[Any, Array] = {L: np.zeros(self.sizes[-1])}
        for layer, link in zip(range(L - 1, 0, -1), self.vae.prior.descent, strict=True):
            size, above = self.sizes[layer - 1], self.sizes[layer]
            A, a = self.rng.normal(size=(size, above)), self.rng.normal(size=size)
            stddev = tight * self.rng.uniform(0.4, 1.5, size)
            set_affine(link.network[0], np.vstack([A, 0 * A]), np.concatenate([a, soft_code(stddev)]))
            own = eye[first[layer - 1] : first[layer]]
            self.of_noise[layer] = A @ self.of_noise[layer + 1] + stddev[:, None] * own
            self.mean[layer] = A @ self.mean[layer + 1] + a
        W, b = self.rng.normal(size=(D, self.sizes[0])), self.rng.normal(size=D)
        set_affine(self.vae.generative.network[0], W, b)
        self.of_noise["y"] = W @ self.of_noise[1] + np.sqrt(self.variance) * eye[first[-1] :]
        self.mean["y"] = W @ self.mean[1] + b

    def covariance(self, a: Any, b: Any) -> Array:
        """Of layers, by their numbers, or "y"."""
        return self.of_noise[a] @ self.of_noise[b].T

    def given(self, a: Any, b: Any) -> tuple[Array, Array, Array]:
        """Slope, offset and covariance of a given b."""
        slope = self.covariance(a, b) @ np.linalg.inv(self.covariance(b, b))
        return slope, self.mean[a] - slope @ self.mean[b], self.covariance(a, a) - slope @ self.covariance(b, a)

    def _bottom_up(self, widen: float) -> None:
        """q(z_1|y) and q(z_{l+1}|z_l)."""
        layers = [self.vae.inference.network[0], *(link.network[0] for link in self.vae.inference.posterior.ascent)]
        for number, layer in enumerate(layers, 1):
            slope, offset, covariance = self.given(number, number - 1 or "y")
            stddev = widen * np.sqrt(np.diag(covariance))
            of_stddev = code(stddev) if number == 1 else soft_code(stddev)
            set_affine(layer, np.vstack([slope, 0 * slope]), np.concatenate([offset, of_stddev]))

    def _vague_ladder(self) -> None:
        """What y says of each layer has the standard deviation 5, so that q is nearly the prior."""
        layers = [self.vae.inference.network[0], *(layer[0] for layer in self.vae.inference.posterior.ascent)]
        for layer, size in zip(layers, self.sizes, strict=True):
            offset = np.where(np.arange(layer.out_features) < size, 0, 4)
            set_affine(layer, np.zeros((layer.out_features, layer.in_features)), offset)

    def _ladder(self, widen: float) -> None:
        """What y says of each layer, p(y|z_l) as a density of z_l; of the top layer q(z_L|y). All depend on y by W'y alone."""
        L = len(self.sizes)
        direction = self.covariance("y", L)[:, 0]
        rows, offsets, stddevs = zip(*(self._said_of(number, widen) for number in range(1, L + 1)), strict=True)
        shares = [row @ direction / (direction @ direction) for row in rows]
        nothing = np.zeros_like(direction)
        set_affine(
            self.vae.inference.network[0],
            np.stack([rows[0], nothing, direction, nothing]),
            np.array([offsets[0], code(stddevs[0]), 0, 0]),
        )
        for number, layer in enumerate(self.vae.inference.posterior.ascent, 1):
            slope = np.array([[shares[number], 0], [0, 0], [1, 0], [0, 0]])
            offset = np.array([offsets[number], code(stddevs[number]), 0, 0])
            set_affine(layer[0], slope[: 4 if number < L - 1 else 2], offset[: 4 if number < L - 1 else 2])

    def _said_of(self, number: int, widen: float) -> tuple[Array, Any, Any]:
        """Mean as slope on y and offset, and standard deviation."""
        if number == len(self.sizes):
            slope, offset, covariance = self.given(number, "y")
            return slope[0], offset[0], widen * np.sqrt(covariance[0, 0])
        slope, offset, covariance = self.given("y", number)
        pull = slope[:, 0] @ np.linalg.inv(covariance)
        precision = pull @ slope[:, 0]
        return pull / precision, -pull @ offset / precision, widen / np.sqrt(precision)

    @property
    def log_likelihood(self) -> Array:
        """log p(y) per row."""
        return self.log_density(self.y)

    def log_density(self, y: torch.Tensor) -> Array:
        """log p(y) of any rows."""
        return np.asarray(multivariate_normal(self.mean["y"], self.covariance("y", "y")).logpdf(y.numpy()))


def code(stddev: Any) -> Any:
    """What `as_stddev` makes this of, for the inference network."""
    return np.where(stddev < 1, np.log(stddev), stddev - 1)


def soft_code(stddev: Any) -> Any:
    """What a link between layers makes this of."""
    return np.log(np.expm1(stddev))


def forward(link: nn.Module, z: Array) -> tuple[Array, Array]:
    """Means and standard deviations that a link gives, by numpy."""
    mean, s = through(link.network, z)
    return mean, np.log1p(np.exp(s))


def through(network: Any, x: Array) -> list[Array]:
    """The two halves of what a tanh network returns."""
    weights = [parameter.detach().numpy() for parameter in network.parameters()]
    for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.tanh(x @ W.T + b)
    return np.split(x @ weights[-2].T + weights[-1], 2, axis=-1)
