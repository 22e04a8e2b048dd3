"""Products of problems with one latent each: nonlinear and multimodal in many dimensions, by one-dimensional integrals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.adversaries.handmade import Function, blocks_model, gaussian, regress, set_encoder, simulate, straight
from tests.adversaries.problem import Array, Kind, Problem
from tests.adversaries.quadrature import grid_log_likelihood
from vae.model.latent_model import LatentModel

WIDE: dict[str, Any] = {"inference": (32,)}  # hidden layer of the inference network


def columns(*functions: Callable[[Array], Array]) -> Function:
    """One column for each function of the latent."""
    return lambda t: np.concatenate([function(t) for function in functions], axis=-1)


def model(function: Function, K: int, stddev: float, **settings: Any) -> LatentModel:
    """K latents, each with columns of its own which are about ``function`` of it, with Gaussian noise."""
    return blocks_model(straight(function, units=settings.pop("units", 24)), K, gaussian(stddev), **settings)


def line_problem(vae: LatentModel, seed: int, y: Tensor | None = None, **grid: Any) -> Problem:
    """These rows, or those that the model makes."""
    rows = simulate(vae, seed=seed)[0] if y is None else y
    return Problem(vae, rows, simulate(vae, seed=1000 + seed)[0], grid_log_likelihood(vae, rows, **grid))


def absolute(seed: int, *, K: int = 1, stddev: float = 0.3, target: Callable[[Tensor], Tensor] = torch.abs) -> Problem:
    """|z| is what the data tell, so that each latent has two modes; q keeps the positive one."""
    return line_problem(regress(model(np.abs, K, stddev, **WIDE), target), seed)


def square(seed: int, *, K: int = 2, stddev: float = 1.0) -> Problem:
    """z^2, with q about the prior."""
    vae = model(np.square, K, stddev)
    set_encoder(vae, np.zeros((K, K)), np.zeros(K), np.ones(K))
    return line_problem(vae, seed)


def waves(seed: int, *, K: int = 1, frequency: float = 4.0, stddev: float = 0.2) -> Problem:
    """Every period of a sine explains a row; q is about the middle one."""
    vae = model(lambda t: np.sin(frequency * t), K, stddev, units=60, **WIDE)
    period = 2 * np.pi / frequency
    return line_problem(regress(vae, lambda z: z - period * (z / period).round()), seed)


def helix(seed: int, *, K: int = 2, stddev: float = 0.3) -> Problem:
    """The windings of a helix come near each other, and its axis tells them apart."""
    function = columns(lambda t: np.sin(3 * t), lambda t: np.cos(3 * t), lambda t: 0.3 * t)
    return line_problem(regress(model(function, K, stddev, units=48, **WIDE)), seed)


def exponential(seed: int, *, K: int = 4, stddev: float = 0.5, widen: float = 1.0) -> Problem:
    """e^z: skewed posteriors, wide where the data are small."""
    return line_problem(regress(model(np.exp, K, stddev, **WIDE), widen=widen), seed)


def impossible(seed: int, *, share: float = 0.05) -> Problem:
    """Some rows of e^z are as negative as the others are positive."""
    vae = regress(model(np.exp, 4, 0.5))
    y = simulate(vae, seed=seed)[0]
    y[: round(share * len(y))] *= -3
    return line_problem(vae, seed, y)


def cubic(seed: int, *, K: int = 3, stddev: float = 0.02) -> Problem:
    """z + z^3 / 3 with little noise: the encoder cannot be as sharp as the posterior."""
    return line_problem(regress(model(lambda t: t + t**3 / 3, K, stddev, **WIDE)), seed, points=16_001)


def tilted(seed: int, *, K: int = 4, tilt: float = 0.25, side: float = 1.0, stddev: float = 0.5) -> Problem:
    """Two modes of unequal mass in each latent; q keeps the heavy one, or the light one with ``side`` -1."""
    vae = model(columns(lambda t: 2 * np.abs(t), lambda t: tilt * t), K, stddev)
    z = 1.5 + 0.3 * torch.randn(40, K, generator=torch.Generator().manual_seed(seed))
    y = vae.generative(z).sample(generator=torch.Generator().manual_seed(seed))
    set_encoder(vae, np.zeros((K, 2 * K)), np.full(K, side * 1.5), np.full(K, 0.3))
    return line_problem(vae, seed, y)


def far(seed: int, *, K: int = 1, distance: float = 3.5, stddev: float = 0.5) -> Problem:
    """The data say |z| = 3.5; q keeps one side."""
    vae = model(columns(lambda t: np.abs(t), lambda t: 1 - t**2 / 10), K, stddev)
    z = distance + 0.1 * torch.randn(40, K, generator=torch.Generator().manual_seed(seed))
    y = vae.generative(z).sample(generator=torch.Generator().manual_seed(seed))
    set_encoder(vae, np.zeros((K, 2 * K)), np.full(K, distance), np.full(K, 0.3))
    return line_problem(vae, seed, y)


def plateaus(seed: int, *, K: int = 3, stddev: float = 0.3) -> Problem:
    """Steps, on which the posterior is flat, with walls between."""
    function = columns(lambda t: np.tanh(8 * (t - 1)) + np.tanh(8 * t) + np.tanh(8 * (t + 1)))
    return line_problem(regress(model(function, K, stddev, units=80, **WIDE)), seed)


def heavy_tails(seed: int, *, K: int = 2, size: float = 6.0, share: float = 0.1, keeps: float = 1.0) -> Problem:
    """Student's noise: an outlying row is either noise or an outlying latent."""
    vae = blocks_model(straight(lambda t: 2 * t), K, {"name": "student_t", "min_scale": 0.3, "min_degrees": 1.5})
    likelihood: Any = vae.generative.likelihood
    with torch.no_grad():
        likelihood.scale.raw.fill_(-3.0)
        likelihood.degrees.raw.fill_(-3.0)
    set_encoder(vae, keeps * np.eye(K) / 2, np.zeros(K), np.full(K, 0.3))
    y = simulate(vae, seed=seed)[0].clamp(-8, 8)
    y[: round(share * len(y))] = size + 0.5 * y[: round(share * len(y))]
    return line_problem(vae, seed, y, reach=10.0)


def counts(seed: int, *, K: int = 4, slope: float = 1.0, widen: float = 1.0) -> Problem:
    """Poisson counts, three columns for each latent."""
    function = columns(lambda t: slope * t, lambda t: 1 - slope * t, lambda t: 0 * t + 1)
    vae = blocks_model(straight(function), K, {"name": "poisson"}, **WIDE)
    return line_problem(regress(vae, widen=widen), seed)


def large_counts(seed: int, *, K: int = 2, share: float = 0.05, factor: float = 30.0) -> Problem:
    """Some rows have so many more counts than the pilot's that its step sizes are far too large for them."""
    function = columns(lambda t: 1 + 1.5 * t, lambda t: 1 + t)
    vae = regress(blocks_model(straight(function), K, {"name": "poisson"}))
    y = simulate(vae, seed=seed)[0]
    count = round(share * len(y))
    y[:count] = (factor * (y[:count] + 3)).round()
    return line_problem(vae, seed, y)


def needles(seed: int, *, K: int = 4, width: float = 0.08, place: float = 1.6, gain: float = 1.8) -> Problem:
    """A narrow range of each latent, beside the wide mode, explains rows better; all rows are of these ranges."""
    steep, flat = 30.0, 0.05
    ends = np.array([place - width, place + width])
    hidden = np.array([[flat], [steep], [steep]]), np.array([0, *(-steep * ends)])
    out = np.array([[1 / flat, -place / 2, place / 2], [0, gain / 2, -gain / 2]]), np.zeros(2)
    vae = blocks_model([hidden, out], K, gaussian(0.5))
    set_encoder(vae, np.kron(np.eye(K), [[0.8, 0.0]]), np.zeros(K), np.full(K, 0.45))
    z = place + 0.5 * width * (2 * torch.rand(40, K, generator=torch.Generator().manual_seed(seed)) - 1)
    y = vae.generative(z).sample(generator=torch.Generator().manual_seed(seed))
    return line_problem(vae, seed, y)


def bits(seed: int, *, K: int = 6, steepness: float = 6.0, widen: float = 1.0) -> Problem:
    """Steep logits: the posterior is the prior, cut off."""
    function = columns(*(partial(_logit, steepness=steepness, at=at) for at in (-1.0, 0.0, 1.0)))
    vae = blocks_model(straight(function), K, {"name": "bernoulli"}, **WIDE)
    return line_problem(regress(vae, widen=widen), seed)


def _logit(t: Array, *, steepness: float, at: float) -> Array:
    return steepness * (t - at)


KINDS: dict[str, Kind] = {
    "line_absolute": absolute,
    "line_absolute_6": partial(absolute, K=6),
    "line_absolute_sharp": partial(absolute, K=4, stddev=0.05),
    "line_square": square,
    "line_square_6": partial(square, K=6, stddev=0.5),
    "line_waves": waves,
    "line_waves_3": partial(waves, K=3),
    "line_helix": helix,
    "line_exponential": exponential,
    "line_exponential_overconfident": partial(exponential, widen=0.05),
    "line_impossible_rows": impossible,
    "line_cubic": cubic,
    "line_tilted": tilted,
    "line_tilted_8": partial(tilted, K=8, tilt=0.1),
    "line_tilted_light": partial(tilted, K=2, side=-1.0),
    "line_far": far,
    "line_far_4": partial(far, K=4, distance=2.5),
    "line_plateaus": plateaus,
    "line_heavy_tails": heavy_tails,
    "line_heavy_tails_ignored": partial(heavy_tails, K=4, size=5.0, share=0.5, keeps=0.0),
    "line_counts": counts,
    "line_counts_overconfident": partial(counts, slope=1.5, widen=0.1),
    "line_large_counts": large_counts,
    "line_needles": needles,
    "line_needles_thin": partial(needles, K=2, width=0.03, gain=2.2),
    "line_bits": bits,
    "line_bits_steep": partial(bits, K=3, steepness=20.0),
}
