"""Decoders with as many narrow modes as one likes and a known log p(y): sums of steps, each along a direction of its own.

The mean of y is Q (f_1(u_1), f_2(u_2)) with u = R z, R and Q rotations. Neither p(z) nor noise of equal variance has a
direction, so that log p(y) is a sum of integrals over one dimension, while nothing in the network's weights shows that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm

from tests.anchors import set_affine
from vae import VAE

Array = NDArray[np.float64]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}


@dataclass(frozen=True)
class Wave:
    """f(u) = sum_k height_k activation(slope_k (u - centre_k)).

    Attributes:
        activation: A name in `ACTIVATIONS`.
    """

    centre: Array
    slope: Array
    height: Array
    activation: str = "tanh"

    def __call__(self, u: Array) -> Array:
        """Of positions (P,)."""
        parts = zip(self.centre, self.slope, self.height, strict=True)
        return np.asarray(sum(a * ACTIVATIONS[self.activation](s * (u - c)) for c, s, a in parts))

    def log_density(self, y: float, stddev: float) -> float:
        """log of the integral of N(y; f(u), stddev^2) N(u; 0, 1) from -12 to 12, by the trapezoidal rule.

        In steps over which f changes by less than the noise; where f has kinks, of 1e-5 at most.
        """
        u = np.linspace(-12, 12, 100_001)
        steepest = np.abs(np.gradient(self(u), u)).max()
        u = np.linspace(-12, 12, int(max(24 * steepest / stddev, 1e5 if self.activation == "tanh" else 24e5)) + 1)
        return float(logsumexp(norm.logpdf(y, self(u), stddev) + norm.logpdf(u)) + np.log(u[1] - u[0]))


def crossing(modes: int, reach: float = 3.0) -> Wave:
    """A wave between -1 and 1 that goes through 0 so many times, evenly from -reach to reach."""
    edges = np.linspace(-reach, reach, modes + 1)
    return Wave((edges[1:] + edges[:-1]) / 2, np.full(modes, 1.5 * modes / reach), (-1.0) ** np.arange(modes))


def random_wave(rng: np.random.Generator, activation: str = "tanh") -> Wave:
    """From gentle to steep, with up to 24 steps."""
    count, steepness = rng.integers(3, 25), 10 ** rng.uniform(0, 1.5)
    slope = rng.uniform(0.2, 1, count) * steepness
    return Wave(rng.uniform(-4, 4, count), slope, rng.normal(size=count), activation)


class WaveModel:
    """A VAE with one such function for each column; two latent dimensions if ``angle`` is given, rotated by it.

    Args:
        waves: f_1, and f_2 where y has two columns.
        stddev: Of the noise.
        settings: Of the VAE.
    """

    def __init__(self, waves: Sequence[Wave], stddev: float, angle: float | None = None, **settings: Any) -> None:
        self.waves, self.stddev = waves, stddev
        R, D = np.eye(1) if angle is None else rotation(angle), len(waves)
        self.mix = np.eye(1) if D == 1 else rotation(0.7)
        hidden, network = sum(len(wave.slope) for wave in waves), {"activation": waves[0].activation}
        likelihood = {"name": "gaussian", "variance": stddev**2}
        settings = {"likelihood": likelihood, "data_dim": D, "latent_dim": len(R)} | settings
        self.vae = VAE({**network, "hidden": [hidden]}, {"hidden": [3]}, **settings).double()
        if settings["likelihood"] is likelihood:
            self.vae.generative.likelihood.get_buffer("variance").fill_(stddev**2)  # in float64
        first = np.concatenate([wave.slope[:, None] * R[d] for d, wave in enumerate(waves)])
        heights = [np.where(np.arange(D)[:, None] == d, wave.height, 0) for d, wave in enumerate(waves)]
        set_affine(self.vae.generative.network[0], first, np.concatenate([-wave.slope * wave.centre for wave in waves]))
        set_affine(self.vae.generative.network[2], self.mix @ np.hstack(heights), np.zeros(D))

    def rows(self, values: Any) -> torch.Tensor:
        """Rows whose values are these before they are mixed, (N, D)."""
        return torch.tensor(np.asarray(values, dtype=float).reshape(-1, len(self.waves)) @ self.mix.T)

    def log_likelihood(self, values: Any) -> Array:
        """log p(y) of such rows."""
        rows = np.asarray(values, dtype=float).reshape(-1, len(self.waves))
        return np.array([sum(f.log_density(y, self.stddev) for f, y in zip(self.waves, row, strict=True)) for row in rows])


def rotation(angle: float) -> Array:
    """Of the plane."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
