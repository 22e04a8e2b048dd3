"""log p(y) by sums over a grid of the prior, for models made of independent blocks of one or two latents.

Where every latent, or pair of latents, has columns of its own, p(y) is a product of integrals over one or two dimensions. On
an even grid the sum of a smooth density converges faster than any power of the spacing.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from tests.adversaries.closed_forms import mixture_parts
from tests.adversaries.problem import Array
from vae.model.latent_model import LatentModel

SETTLED = 1e-2  # nats by which a row may differ on every other point: on all it is off by a quarter of that at most
NEGLIGIBLE = -12.0  # log of the share that may lie on the grid's edge
TINY = 1e-300
NUMBERS = 4_000_000  # at once


@torch.no_grad()
def grid_log_likelihood(vae: LatentModel, y: Tensor, *, size: int = 1, points: int = 4001, reach: float = 8.0) -> Array:
    """Of rows y (N, D), with blocks of ``size`` latents, whose columns follow each other, and so many points on each axis.

    Raises:
        ArithmeticError: If the grid is too coarse, or does not reach far enough.
    """
    generative: Any = deepcopy(vae.generative).double()
    axis = np.linspace(-reach, reach, points)
    t = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size)
    blocks = vae.card.latent_size // size
    p = generative.likelihood(generative.features(torch.tensor(np.tile(t, blocks)))[:, None])
    log_cells = log_prior(vae, t) + size * np.log(axis[1] - axis[0])
    chunks = y.double().split(max(1, NUMBERS // (len(t) * y.shape[1])))
    values = [_integrals(p.log_prob_columns(rows).numpy(), log_cells, blocks, (points,) * size) for rows in chunks]
    fine, coarse, edge = np.concatenate(values, axis=1)
    if not np.abs(fine - coarse).max() < SETTLED:
        raise ArithmeticError(
            f"points must be more than {points}: halved, log p(y) differs by {np.abs(fine - coarse).max():g}"
        )
    if not edge.max() < NEGLIGIBLE:
        raise ArithmeticError(f"reach must be more than {reach}: the edge has a share of e^{edge.max():.1f}")
    return fine


def log_prior(vae: LatentModel, t: Array) -> Array:
    """Log density of a block's latents (G, size): standard normal, or the mixture that a lone block may have."""
    if vae.prior.normal:
        return np.asarray(norm.logpdf(t).sum(axis=-1))
    log_weights, means, stddevs = mixture_parts(vae)
    return np.asarray(logsumexp(log_weights + norm.logpdf(t[:, None], means, stddevs).sum(axis=-1), axis=-1))


def _integrals(log_columns: Array, log_cells: Array, blocks: int, shape: tuple[int, ...]) -> Array:
    """From log p(y_d|t) (G, N, D): log p(y) by all points, by every other on each axis, and the edge's share of it, (3, N)."""
    log_blocks = log_columns.reshape(*log_columns.shape[:2], blocks, -1).sum(axis=-1) + log_cells[:, None, None]
    largest = log_blocks.max(axis=0)
    masses, axes = np.exp(log_blocks - largest).reshape(*shape, *largest.shape), tuple(range(len(shape)))
    fine = masses.sum(axis=axes)
    coarse = masses[(slice(None, None, 2),) * len(shape)].sum(axis=axes) * 2 ** len(shape)
    edges = np.max([masses.take([0, -1], axis=axis).sum(axis=axes) for axis in axes], axis=0)
    by_all, by_every_other = ((np.log(sums + TINY) + largest).sum(axis=-1) for sums in (fine, coarse))
    return np.stack([by_all, by_every_other, np.log(edges / fine + TINY).max(axis=-1)])
