"""Mixtures whose components differ much in width: annealing finds the wide ones, whatever the narrow ones weigh."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.adversaries.handmade import regress
from tests.adversaries.mixtures import keep, mixture_model, mixture_problem, rows_of
from tests.adversaries.problem import Kind, Problem


def widths(seed: int, *, K: int = 5, M: int = 10, spread: float = 1.2, stddev: float = 1.5) -> Problem:
    """Components of equal weight and of widths that differ by factors, between which the data decide little."""
    rng = np.random.default_rng(seed)
    stddevs = np.repeat(0.25 * np.exp(spread * rng.normal(size=(M, 1))).clip(0.02, 4), K, axis=1)
    vae = mixture_model(rng.normal(size=(4, K)), stddev, [1 / M] * M, 1.5 * rng.normal(size=(M, K)), stddevs)
    return mixture_problem(regress(vae), seed)


def spikes(seed: int, *, K: int = 4, M: int = 8, narrow: float = 0.02, share: float = 0.1, size: float = 1.0) -> Problem:
    """A wide component with spikes in it, and rows of one of these."""
    rng = np.random.default_rng(seed)
    W, means = size * rng.normal(size=(5, K)), np.vstack([np.zeros(K), rng.normal(size=(M, K))])
    stddevs = np.vstack([np.ones(K), np.full((M, K), narrow)])
    vae = mixture_model(W, 0.7, [1 - share, *[share / M] * M], means, stddevs)
    keep(vae, W, 0.7, means[0], np.ones(K))
    return mixture_problem(vae, seed, rows_of(vae, 1, seed))


def needle(seed: int, *, K: int = 8, narrow: float = 0.1, share: float = 0.05, size: float = 0.6) -> Problem:
    """One spike in many dimensions."""
    return spikes(seed, K=K, M=1, narrow=narrow, share=share, size=size)


KINDS: dict[str, Kind] = {
    "spike_widths": widths,
    "spike_widths_little": partial(widths, K=3, spread=0.6),
    "spike_eight": spikes,
    "spike_eight_rare": partial(spikes, share=0.02, narrow=0.01),
    "spike_one": needle,
    "spike_one_blunt": partial(needle, K=6, narrow=0.3, share=0.3),
}
