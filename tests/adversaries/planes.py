"""Products of problems with two latents each, whose posteriors are curved: rings, bananas, funnels, arms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.adversaries.handmade import Function, blocks_model, gaussian, regress, set_encoder, straight
from tests.adversaries.lines import WIDE, line_problem
from tests.adversaries.problem import Array, Kind, Problem
from vae.model.latent_model import LatentModel


def plane(function: Function, blocks: int, stddev: float, *, directions: int = 8, **settings: Any) -> LatentModel:
    """So many pairs of latents, each with columns of its own that are about ``function`` of it."""
    layers = straight(function, 2, directions=directions, units=settings.pop("units", 16))
    return blocks_model(layers, blocks, gaussian(stddev), **settings)


def plane_problem(vae: LatentModel, seed: int, y: Tensor | None = None, points: int = 321, reach: float = 5.6) -> Problem:
    """These rows, or those that the model makes."""
    return line_problem(vae, seed, y, size=2, points=points, reach=reach)


def ring(seed: int, *, blocks: int = 1, stddev: float = 0.5, beside: bool = False) -> Problem:
    """The data tell how far the latents are from the origin; q is wide around it, or sits at one place of the ring."""
    vae = plane(lambda t: (t**2).sum(axis=-1, keepdims=True), blocks, stddev, directions=2, units=24)
    K = 2 * blocks
    if not beside:
        set_encoder(vae, np.zeros((K, blocks)), np.zeros(K), np.ones(K))
        return plane_problem(vae, seed)
    set_encoder(vae, np.zeros((K, blocks)), np.tile([1.2, 0.0], blocks), np.full(K, 0.2))
    return plane_problem(vae, seed)


def banana(seed: int, *, blocks: int = 1, stddev: float = 0.3, widen: float = 1.0) -> Problem:
    """z_2 + z_1^2 is told well, z_1 badly."""
    function = _two(lambda a, b: b + a**2, lambda a, b: 0.1 * a)
    return plane_problem(regress(plane(function, blocks, stddev, directions=2, units=24, **WIDE), widen=widen), seed)


def funnel(seed: int, *, blocks: int = 1, stddev: float = 0.3, widen: float = 1.0) -> Problem:
    """z_2 e^(1.5 z_1) is told: a narrow neck where z_1 is large, up to 1.2."""
    function = _two(lambda a, b: b * np.exp(1.5 * np.minimum(a, 1.2)))
    return plane_problem(regress(plane(function, blocks, stddev, **WIDE), widen=widen), seed, points=401)


def noisy_funnel(seed: int) -> Problem:
    """The noise's size is a latent: y is normal with mean z_2 and log variance about 2 z_1."""
    layers = straight(_two(lambda a, b: b, lambda a, b: b, lambda a, b: 2 * a, lambda a, b: 2 * a), 2, directions=2)
    vae = blocks_model(layers, 1, {"name": "gaussian_heteroscedastic"}, **WIDE)
    return plane_problem(regress(vae), seed, points=501)


def arms(seed: int, *, blocks: int = 1, stddev: float = 0.5, quadrant: bool = False) -> Problem:
    """The product of two latents is told: two arms, of which q keeps the one in the first quadrant, or is wide."""
    vae = plane(_two(lambda a, b: a * b), blocks, stddev, directions=4, units=24)
    K = 2 * blocks
    where, width = (1.0, 0.5) if quadrant else (0.0, 1.0)
    set_encoder(vae, np.zeros((K, blocks)), np.full(K, where), np.full(K, width))
    return plane_problem(vae, seed)


def corners(seed: int, *, blocks: int = 1, stddev: float = 0.2) -> Problem:
    """|z_1| and |z_2| are told: four modes in each plane, of which q keeps one."""
    vae = plane(np.abs, blocks, stddev, directions=2, units=40, **WIDE)
    return plane_problem(regress(vae, torch.abs), seed)


def spiral(seed: int, *, stddev: float = 0.2) -> Problem:
    """Radius and angle run together, so that the posterior has strips next to each other."""
    function = _two(lambda a, b: np.cos(2 * a + b), lambda a, b: np.sin(2 * a - b))
    return plane_problem(regress(plane(function, 1, stddev, directions=8, units=24, **WIDE)), seed)


def thin(seed: int, *, stddev: float = 0.05, widen: float = 1.0) -> Problem:
    """A thin valley, bent: sin(2 z_1) - z_2 is told twice."""
    function = _two(lambda a, b: np.sin(2 * a) - b, lambda a, b: 0.3 * (a + b))
    return plane_problem(regress(plane(function, 1, stddev, directions=2, units=24, **WIDE), widen=widen), seed, points=481)


def displaced(seed: int, *, shift: float = 4.0) -> Problem:
    """The encoder is off the curved posterior altogether."""
    function = _two(lambda a, b: b + a**2, lambda a, b: a - b)
    vae = plane(function, 2, 0.3, directions=2, units=24, **WIDE)
    return plane_problem(regress(vae, shift=shift, widen=0.5), seed)


def prior_mixture(seed: int) -> Problem:
    """A ring's decoder under a prior of three components."""
    prior = {"name": "gaussian_mixture", "components": 3}
    vae = plane(lambda t: (t**2).sum(axis=-1, keepdims=True), 1, 0.5, directions=2, units=24, prior=prior, **WIDE)
    with torch.no_grad():
        vae.prior.mean.copy_(torch.tensor([[-2.0, 0.0], [1.0, 1.7], [1.0, -1.7]]))
        vae.prior.raw_stddev.fill_(-0.7)
    return plane_problem(regress(vae), seed)


def _two(*functions: Callable[[Array, Array], Array]) -> Function:
    """One column for each function of a pair of latents."""
    return lambda t: np.stack([function(t[:, 0], t[:, 1]) for function in functions], axis=-1)


KINDS: dict[str, Kind] = {
    "plane_ring": ring,
    "plane_ring_beside": partial(ring, stddev=0.3, beside=True),
    "plane_ring_3": partial(ring, blocks=3, stddev=0.3),
    "plane_banana": banana,
    "plane_banana_3": partial(banana, blocks=3),
    "plane_banana_overconfident": partial(banana, blocks=2, widen=0.05),
    "plane_funnel": funnel,
    "plane_funnel_2": partial(funnel, blocks=2, widen=0.3),
    "plane_noisy_funnel": noisy_funnel,
    "plane_arms": arms,
    "plane_arms_quadrant": partial(arms, blocks=2, quadrant=True),
    "plane_corners": corners,
    "plane_corners_4": partial(corners, blocks=4),
    "plane_spiral": spiral,
    "plane_thin": thin,
    "plane_thin_overconfident": partial(thin, widen=0.05),
    "plane_displaced": displaced,
    "plane_prior_mixture": prior_mixture,
}
