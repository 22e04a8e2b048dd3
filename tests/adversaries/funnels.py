"""Affine decoders whose noise depends on the first latent: given that one, y is normal, so that one integral is left.

The posterior is a funnel (Neal 2003, "Slice sampling", section 8): the other latents are told well or badly, depending on the
first, in any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from tests.adversaries.closed_forms import numpy
from tests.adversaries.handmade import Layers, blocks_model, regress, simulate
from tests.adversaries.problem import ROWS, Array, Kind, Problem
from vae.model.latent_model import LatentModel

SMALL = 0.02  # slope with which a latent passes a tanh nearly unbent
STEEP = 6.0


def funnel(seed: int, *, K: int = 4, D: int = 8, slope: float = 2.0) -> Problem:
    """The raw variance falls along the first latent; rows of the model."""
    W = np.random.default_rng(seed).normal(size=(D, K - 1))
    means = np.hstack([np.zeros((D, 1)), W])
    raw = np.zeros((D, K))
    raw[:, 0] = -slope
    vae = _model([(np.vstack([means, raw]), np.zeros(2 * D))])
    return _problem(vae, W, lambda t: -slope * t, simulate(vae, seed=seed)[0], seed)


def step(seed: int, *, K: int = 4, D: int = 8, at: float = 1.3, fall: float = 4.0, all_rows: bool = False) -> Problem:
    """The noise is small where the first latent is beyond a threshold; rows of the model, or of there only."""
    W = np.random.default_rng(seed).normal(size=(D, K - 1))
    hidden = np.diag([STEEP, *[SMALL] * (K - 1)])
    raw = np.zeros((D, K))
    raw[:, 0] = -fall
    out = np.vstack([np.hstack([np.zeros((D, 1)), W / SMALL]), raw])
    vae = _model([(hidden, np.array([-STEEP * at, *[0] * (K - 1)])), (out, np.zeros(2 * D))])
    y = _beyond(vae, at, seed) if all_rows else simulate(vae, seed=seed)[0]
    return _problem(vae, W, lambda t: -fall * np.tanh(STEEP * (t - at)), y, seed)


def _model(layers: Layers) -> LatentModel:
    return regress(blocks_model(layers, 1, {"name": "gaussian_heteroscedastic"}, inference=(32,)))


def _beyond(vae: LatentModel, at: float, seed: int) -> Tensor:
    """Rows whose first latent is beyond the threshold, by its tail."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(ROWS, vae.card.latent_size))
    z[:, 0] = norm.isf(norm.sf(at + 0.3) * rng.uniform(size=ROWS))
    with torch.no_grad():
        drawn: Tensor = vae.generative(torch.tensor(z).float()).sample(generator=torch.Generator().manual_seed(seed))
    return drawn


def _problem(vae: LatentModel, W: Array, raw: Callable[[Array], Array], y: Tensor, seed: int) -> Problem:
    """With log p(y) = log of the integral over t of N(t) N(y; 0, W W' + s(t)^2 I)."""
    likelihood: Any = vae.generative.likelihood
    t = np.linspace(-8, 8, 16_001)
    variance = likelihood.min_variance + np.logaddexp(0, raw(t))[:, None]
    U, d, _ = np.linalg.svd(W)
    spread = variance + np.concatenate([d**2, np.zeros(len(W) - len(d))])
    squares = (numpy(y) @ U) ** 2 @ (1 / spread).T
    log_density = -0.5 * (squares + np.log(2 * np.pi * spread).sum(axis=-1))
    values = logsumexp(log_density + norm.logpdf(t) + np.log(t[1] - t[0]), axis=-1)
    return Problem(vae, y, simulate(vae, seed=1000 + seed)[0], np.asarray(values))


KINDS: dict[str, Kind] = {
    "funnel_two": partial(funnel, K=2, D=3),
    "funnel_four": funnel,
    "funnel_nine": partial(funnel, K=9, D=12, slope=3.0),
    "funnel_step": step,
    "funnel_step_rows": partial(step, at=1.8, all_rows=True),
    "funnel_step_rare": partial(step, K=6, D=12, at=2.5, all_rows=True),
}
