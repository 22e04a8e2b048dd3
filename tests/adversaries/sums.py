"""Decoders of a sum over the latents, whose posteriors are shells in many dimensions: by the distribution of the sum.

All latents contribute the same function of themselves, so that the sum's distribution is a convolution, in any number of
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np
import torch
from scipy.signal import fftconvolve
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from tests.adversaries.closed_forms import numpy
from tests.adversaries.handmade import Layers, blocks_model, gaussian, regress, set_encoder, simulate, straight
from tests.adversaries.problem import Array, Kind, Problem
from vae.model.latent_model import LatentModel

BINS = 8_000  # of what one latent contributes
LEAST = 1e-14  # probability of a bin, below which the convolution is rounding
SCALES = np.array([1.0, -0.5])  # of the columns


def total(
    function: Callable[[Array], Array], K: int, stddev: float, *, inference: tuple[int, ...] = ()
) -> tuple[LatentModel, Callable[[Tensor], Array]]:
    """A model whose columns are multiples of the sum of ``function`` of each latent, and its log p(y)."""
    (A, c), (V, b) = straight(function, units=40)
    layers: Layers = [(np.kron(np.eye(K), A).astype(np.float64), np.tile(c, K))]
    layers.append((SCALES[:, None] * np.tile(V, K), SCALES * K * b))
    vae = blocks_model(layers, 1, gaussian(stddev), inference=inference)
    A, c, V = (of.astype(np.float32).astype(np.float64) for of in (A, c, V))

    def log_likelihood(y: Tensor) -> Array:
        t = np.linspace(-9, 9, 400_001)
        edges, mass = _distribution((np.tanh(t[:, None] * A[:, 0] + c) @ V[0]), norm.pdf(t) * (t[1] - t[0]))
        sums = K * edges[0] + (edges[1] - edges[0]) * (np.arange(K * (BINS - 1) + 1) + K / 2)
        log_mass = np.log(np.maximum(reduce(fftconvolve, [mass] * K), LEAST))
        means = SCALES * (sums[:, None] + K * b)
        log_density = norm.logpdf(numpy(y)[:, None], means, stddev).sum(axis=-1)
        return np.asarray(logsumexp(log_mass + log_density, axis=1))

    return vae, log_likelihood


def _distribution(values: Array, weights: Array) -> tuple[Array, Array]:
    """Edges and masses of even bins."""
    mass, edges = np.histogram(values, BINS, weights=weights)
    return edges, mass


def shell(
    seed: int,
    function: Callable[[Array], Array] = np.square,
    *,
    K: int = 6,
    stddev: float = 0.5,
    at: float | None = None,
    width: float = 1.0,
) -> Problem:
    """Rows of the model; q is the prior, or lies around one place for all rows."""
    vae, log_likelihood = total(function, K, stddev)
    set_encoder(vae, np.zeros((K, 2)), np.full(K, at or 0.0), np.full(K, width))
    y = simulate(vae, seed=seed)[0]
    return Problem(vae, y, simulate(vae, seed=1000 + seed)[0], log_likelihood(y))


def one_side(seed: int, *, K: int = 5, stddev: float = 0.3) -> Problem:
    """The encoder has learned the corner where all latents are positive."""
    vae, log_likelihood = total(np.square, K, stddev, inference=(32,))
    regress(vae, torch.abs)
    y = simulate(vae, seed=seed)[0]
    return Problem(vae, y, simulate(vae, seed=1000 + seed)[0], log_likelihood(y))


def waves(t: Array) -> Array:
    """Many values of a latent contribute the same."""
    return np.asarray(np.sin(3 * t))


KINDS: dict[str, Kind] = {
    "sum_sphere": shell,
    "sum_sphere_8": partial(shell, K=8, stddev=0.3),
    "sum_sphere_thin": partial(shell, K=4, stddev=0.05),
    "sum_sphere_beside": partial(shell, at=0.9, width=0.3),
    "sum_sphere_one_side": one_side,
    "sum_octahedron": partial(shell, function=np.abs, K=5, stddev=0.2),
    "sum_waves": partial(shell, function=waves, K=4, stddev=0.2),
    "sum_waves_beside": partial(shell, function=waves, K=4, stddev=0.2, at=0.5, width=0.2),
}
