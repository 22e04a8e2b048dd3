"""Networks set by hand: decoders that are given functions, made of independent blocks, and encoders found by regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from tests.adversaries.closed_forms import numpy
from tests.adversaries.problem import ROWS, Array
from tests.anchors import set_affine
from tests.chains import code
from vae.model.latent_model import LatentModel

Layers = list[tuple[Array, Array]]  # weight and bias of each, with a tanh between
Function = Callable[[Array], Array]  # of latents (G, size), returns (G, columns)
REGRESSED = 4000  # simulated rows
RIDGE = 1e-7
SPAN = 5.0  # of latents to which functions are fitted


def straight(function: Function, size: int = 1, *, directions: int = 1, units: int = 24) -> Layers:
    """A network with one hidden layer that is about ``function``, by least squares: ridges along evenly spaced directions."""
    angles = np.pi * np.arange(directions) / directions
    across = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, :size]
    steepness, offsets = units / (2 * SPAN), np.linspace(-SPAN, SPAN, units)
    A = np.repeat(steepness * across, units, axis=0)
    c = -np.tile(steepness * offsets, directions)
    axis = np.linspace(-SPAN, SPAN, 600 if size == 1 else 60)
    t = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size)
    V, b = least_squares(np.tanh(t @ A.T + c), function(t))
    return [(A, c), (V, b)]


def least_squares(x: Array, of: Array) -> tuple[Array, Array]:
    """Weight and bias of the affine map of x (n, p) that is nearest to values (n, d), with a small penalty."""
    centre, middle = x.mean(axis=0), of.mean(axis=0)
    x = x - centre
    weight = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (of - middle)).T
    return weight, middle - weight @ centre


def blocks_model(layers: Layers, blocks: int, likelihood: dict[str, Any], **settings: Any) -> LatentModel:
    """So many copies of a decoder side by side, each with latents and columns of its own."""
    hidden = [blocks * len(bias) for _, bias in layers[:-1]]
    inference = {"hidden": settings.pop("inference", ()), "activation": "tanh"}
    parts: dict[str, Any] = {"likelihood": likelihood, **settings}
    columns = blocks * len(layers[-1][1]) // _features(likelihood)
    generative = {"hidden": hidden, "activation": "tanh"}
    vae = LatentModel(generative, inference, data_dim=columns, latent_dim=blocks * layers[0][0].shape[1], **parts)
    for layer, (weight, bias) in zip(_linear(vae.generative.network), layers, strict=True):
        set_affine(layer, block_diag(*[weight] * blocks), np.tile(bias, blocks))
    return vae.eval()


def gaussian(stddev: float) -> dict[str, Any]:
    """The likelihood with this noise."""
    return {"name": "gaussian", "variance": stddev**2}


def simulate(vae: LatentModel, N: int = ROWS, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rows (N, D) and their latents (N, K)."""
    drawn: Any = vae.generate(N, seed=seed, full=True)
    return drawn.y, drawn.z


def regress(
    vae: LatentModel,
    target: Callable[[Tensor], Tensor] = lambda z: z,
    *,
    widen: float = 1.0,
    shift: float = 0.0,
    seed: int = 0,
) -> LatentModel:
    """Set q(z|y) by least squares of what ``target`` makes of latents on simulated rows; the residuals have its widths.

    Args:
        vae: The model, whose hidden layers of the inference network stay random.
        target: Of latents (n, K); of several modes it may keep one.
        widen: Factor on the standard deviations.
        shift: Of the means, in standard deviations.
        seed: Of the rows.
    """
    y, z = simulate(vae, REGRESSED, seed=10_000 + seed)
    network: Any = vae.inference.network
    if len(network) > 1:
        spread = numpy(y).std(axis=0) + 1e-6
        weight = 2 * numpy(network[0].weight) / spread
        set_affine(network[0], weight, numpy(network[0].bias) - weight @ numpy(y).mean(axis=0))
    with torch.no_grad():
        x = numpy(nn.Sequential(*list(network)[:-1])(y))
    of = numpy(target(z))
    slope, offset = least_squares(x, of)
    stddev = (of - x @ slope.T - offset).std(axis=0) + 1e-6
    set_encoder(vae, slope, offset + shift * stddev, widen * stddev)
    return vae


def set_encoder(vae: LatentModel, slope: Array, offset: Array, stddev: Array) -> None:
    """Of the last layer of the inference network: means, and standard deviations which do not depend on y."""
    set_affine(vae.inference.network[-1], np.vstack([slope, 0 * slope]), np.concatenate([offset, code(stddev)]))


def _linear(network: Any) -> Sequence[nn.Module]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def _features(likelihood: dict[str, Any]) -> int:
    return {"gaussian_heteroscedastic": 2}.get(likelihood["name"], 1)
