"""Boxes in many dimensions that are decoded as one thing, and all that is around them as another, without a slope between.

The decoder reads the sum of what each latent contributes, which has the same distribution for all, so that p(y) is an integral
over the distribution of a sum: by convolution, in any number of dimensions.
"""

from __future__ import annotations

from functools import partial, reduce

import numpy as np
import torch
from scipy.signal import fftconvolve
from scipy.special import logsumexp
from scipy.stats import norm

from tests.adversaries.closed_forms import numpy
from tests.adversaries.handmade import Layers, blocks_model, gaussian, set_encoder, simulate
from tests.adversaries.problem import ROWS, Array, Kind, Problem

WALL = 0.1
STDDEV = 0.7
HEIGHTS = np.array([3.0, -2.0, 2.0])  # of the columns inside of the box
BINS = 8000  # of what a latent contributes, from 0 to 2


def lock(seed: int, *, K: int, half: float, height: float = 1.0, share: float = 1.0, hidden: bool = False) -> Problem:
    """All latents must be within a range, around 0.5, for the data to be the others; q is the prior.

    Args:
        seed: Of the rows.
        K: Latents.
        half: Half of the range.
        height: Factor on how different the data are.
        share: Of test rows of the box.
        hidden: Whether it is out of reach.
    """
    low, high = 0.5 - half, 0.5 + half
    vae = blocks_model(layers(K, low, high, height), 1, gaussian(STDDEV))
    set_encoder(vae, np.zeros((K, 3)), np.zeros(K), np.ones(K))
    noise = STDDEV * torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(seed))
    inside = (torch.arange(ROWS) < share * ROWS).float()[:, None]
    y = inside * height * torch.tensor(HEIGHTS).float() + noise
    return Problem(vae, y, simulate(vae, seed=1000 + seed)[0], log_likelihood(numpy(y), K, low, high, height), hidden)


def layers(K: int, low: float, high: float, height: float) -> Layers:
    """Of a tanh at either end of each latent's range, and one of their sum."""
    A = np.kron(np.eye(K), np.ones((2, 1))) / WALL
    c = -np.tile([low, high], K) / WALL
    sign = np.tile([2.0, -2.0], K)[None]
    return [(A, c), (sign, np.array([_threshold(K)])), (height * HEIGHTS[:, None] / 2, height * HEIGHTS / 2)]


def log_likelihood(y: Array, K: int, low: float, high: float, height: float) -> Array:
    """Of rows y (N, D), by the distribution of the sum on a fine grid."""
    t = np.linspace(-9, 9, 400_001)
    contributed = np.tanh((t - low) / WALL) - np.tanh((t - high) / WALL)
    mass = np.histogram(contributed, BINS, (0, 2), weights=norm.pdf(t) * (t[1] - t[0]))[0]
    total = reduce(fftconvolve, [mass] * K)
    s = 2 / BINS * (np.arange(len(total)) + K / 2)
    means = height * HEIGHTS * (1 + np.tanh(2 * s + _threshold(K)))[:, None] / 2
    log_mass = np.log(np.maximum(total, 1e-300))[:, None]
    return np.asarray(logsumexp(log_mass + norm.logpdf(y, means[:, None], STDDEV).sum(axis=-1), axis=0))


def _threshold(K: int) -> float:
    return -(4.0 * K - 2.0)


KINDS: dict[str, Kind] = {
    "lock_open": partial(lock, K=3, half=1.0),
    "lock_4": partial(lock, K=4, half=0.5),
    "lock_some_rows": partial(lock, K=4, half=0.6, share=0.1),
    "lock_8": partial(lock, K=8, half=0.8),
    "lock_shallow": partial(lock, K=6, half=0.5, height=0.62),
    "lock_shallow_rare": partial(lock, K=8, half=0.5, height=0.74),
    "lock_shallow_hidden": partial(lock, K=8, half=0.35, height=0.84, hidden=True),
    "lock_hidden": partial(lock, K=8, half=0.25, hidden=True),
}
