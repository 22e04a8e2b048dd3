"""Narrow modes with much of the mass, which some runs find and others do not: by a reviewer, who had seen the rules.

p(y|z) is made as a sum of bumps over latents. Exact values: sums of their masses, or quadrature around each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import ncx2
from torch import Tensor, nn

from tests.adversaries.closed_forms import mixture_log_likelihood
from tests.adversaries.handmade import set_encoder
from tests.adversaries.mixtures import mixture_model
from tests.adversaries.problem import Array, Kind, Problem
from vae.model.latent_model import LatentModel

N, FAR = 30, 20.0  # rows, and where their values are, which nothing but the bumps explains
LOG_ROOT = math.log(2 * math.pi) / 2


class Formula(nn.Module):
    """A network that is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.unused = nn.Linear(1, 1)  # by which a network tells its device and its width

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def by_formulas(
    K: int, decoder: Callable[[Tensor], Tensor], encoder: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> LatentModel:
    """One column, whose mean is a function of the latents; q by means and logarithms of standard deviations of at most 1."""
    vae = LatentModel(
        {"hidden": ()}, {"hidden": ()}, data_dim=1, latent_dim=K, likelihood={"name": "gaussian", "variance": 1.0}
    )
    vae.generative.network = Formula(decoder)
    vae.inference.network = Formula(lambda y: torch.cat(encoder(y), dim=-1))
    return vae.eval()


def problem(vae: LatentModel, y: Any, truth: Any, *, hidden: bool = False) -> Problem:
    rows = torch.as_tensor(np.asarray(y), dtype=torch.float32).reshape(len(y), -1)
    return Problem(vae, rows, rows, np.asarray(truth, dtype=np.float64), hidden)


def log_mass(K: int, centre: Array, stddev: float) -> float:
    """Of exp(-|z - centre|^2 / 2 stddev^2) under the prior."""
    widened = 1 + stddev**2
    return K * math.log(stddev / math.sqrt(widened)) - float(centre @ centre) / 2 / widened


def log_bumps(z: Tensor, bumps: list[tuple[float, Array, float]], floor: float) -> Tensor:
    """Log of a sum of bumps exp(height - |z - centre|^2 / 2 stddev^2), and of exp(-floor)."""
    parts = [height - (z - z.new_tensor(centre)).square().sum(-1) / 2 / stddev**2 for height, centre, stddev in bumps]
    return torch.logsumexp(torch.stack([*parts, torch.full_like(parts[0], -floor)]), 0)


def at_value(z: Tensor, log_density: Tensor) -> Tensor:
    """The mean by which a row at `FAR` has this log density, but for the normal constant."""
    return FAR - (-2 * log_density).sqrt()[..., None]


def towards(centre: Array, stddev: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """q at a centre for rows that are far, and the prior for others."""

    def encoder(y: Tensor) -> tuple[Tensor, Tensor]:
        far = (y > FAR / 2).to(y)
        return far * y.new_tensor(centre), (far * math.log(stddev)).expand(*y.shape[:-1], len(centre))

    return encoder


def its_own(seed: int, *, half: float = 0.0) -> Problem:
    """Two modes of equal mass in four latents: q is at the narrow one, and annealing from the prior goes to the wide one.

    With ``half`` their ratio differs by row.
    """
    K, narrow, wide = 4, 0.03, 0.3
    a, b = np.array([0.6, 0, 0, 0]), np.array([-0.6, 0, 0, 0])
    height = -0.2
    bumps = [(height, a, narrow), (height + log_mass(K, a, narrow) - log_mass(K, b, wide), b, wide)]
    vae = by_formulas(K, lambda z: at_value(z, log_bumps(z, bumps, 40.0)), towards(a, narrow))
    shift = np.linspace(-half, half, N)
    masses = [[_mass_of_row(K, *bump, delta) for delta in shift] for bump in bumps]
    return problem(vae, FAR + shift, np.log(np.sum(masses, axis=0)) - LOG_ROOT)


def _mass_of_row(K: int, height: float, centre: Array, stddev: float, shift: float) -> float:
    """Of one bump for a row at `FAR` + shift, by a sum over its radius."""
    x, weights = np.polynomial.legendre.leggauss(200)
    r, weights = 4.5 * stddev * (x + 1), 4.5 * stddev * weights
    of_radius = ncx2.pdf(r**2, K, float(centre @ centre)) * 2 * r
    return float((weights * of_radius * np.exp(-((shift + np.sqrt(-2 * (height - r**2 / 2 / stddev**2))) ** 2) / 2)).sum())


def behind_a_funnel(
    seed: int, *, K: int = 2, funnel: float = 0.16, needle: float = 0.004, share: float | None = None
) -> Problem:
    """A broad mode, and a needle of three times its mass with a small funnel: few draws and chains fall in."""
    broad, a, b = 0.35, np.zeros(K), np.zeros(K)
    a[0], b[0] = -0.8, 1.0
    mass_a = -6.0 + log_mass(K, a, broad)
    low = -7.0 if share is None else mass_a - log_mass(K, b, funnel) + math.log(share)
    high = mass_a - log_mass(K, b, needle) + math.log(3)
    top = max(-6.0, high) + 0.1
    bumps = [(-6.0 - top, a, broad), (low - top, b, funnel), (high - top, b, needle)]
    vae = by_formulas(K, lambda z: at_value(z, log_bumps(z, bumps, 30.0)), towards(a, broad / math.hypot(1, broad)))
    masses = [height + log_mass(K, centre, stddev) for height, centre, stddev in bumps]
    return problem(vae, np.full(N, FAR), np.full(N, np.logaddexp.reduce([*masses, -30.0]) - LOG_ROOT), hidden=K > 2)


def few_draws(seed: int) -> Problem:
    """Two latents: a wide bump of the mean, and a narrow one with more mass, which some thirty of 100,000 draws hit."""
    centres, heights, stddevs = np.array([[-1.0, 0], [1.0, 0]]), (7.7, 11.5), (0.5, 0.036)

    def bump(z: Tensor, k: int) -> Tensor:
        return heights[k] * (-(z - z.new_tensor(centres[k])).square().sum(-1, keepdim=True) / 2 / stddevs[k] ** 2).exp()

    def encoder(y: Tensor) -> tuple[Tensor, Tensor]:
        far = (y > FAR / 4).to(y)
        return far * y.new_tensor(centres[0]), (far * math.log(0.12)).expand(*y.shape[:-1], 2)

    def density(z: Array, mean: Tensor, value: float) -> Array:
        return np.exp(-(z**2).sum(axis=1) / 2 - (value - mean[:, 0].numpy()) ** 2 / 2) / (2 * math.pi)

    y, (z, w), (near, of_near) = np.linspace(10.8, 11.2, N), _grid(np.zeros(2), 7.0, 60), _grid(centres[1], 0.288, 32)
    wide, wide_near, narrow = bump(torch.tensor(z), 0), bump(torch.tensor(near), 0), bump(torch.tensor(near), 1)
    of_wide = [w @ density(z, wide, value) for value in y]
    more = [of_near @ (density(near, wide_near + narrow, value) - density(near, wide_near, value)) for value in y]
    return problem(by_formulas(2, lambda z: bump(z, 0) + bump(z, 1), encoder), y, np.log(np.add(of_wide, more)) - LOG_ROOT)


def _grid(centre: Array, half: float, panels: int) -> tuple[Array, Array]:
    """Nodes (P, 2) and weights of a product of Gauss-Legendre rules on panels, which end at the edges of a square."""
    x, weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(-half, half, panels + 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    t, w = (middle[:, None] + width[:, None] * x).ravel(), (width[:, None] * weights).ravel()
    z = np.stack(np.meshgrid(t, t, indexing="ij"), axis=-1).reshape(-1, 2)
    return z + centre, (w[:, None] * w).ravel()


def rare_component(seed: int, *, share: float = 3e-4) -> Problem:
    """A component of the prior of that share makes the rows, in four latents; q knows the other one alone."""
    K, variance = 4, 0.25
    centre = np.array([3.2, -1.5, 1.0, 1.0])
    means, stddevs = np.stack([0 * centre, centre]), np.array([[1.0], [0.01]]).repeat(K, axis=1)
    vae = mixture_model(np.eye(K), math.sqrt(variance), [1 - share, share], means, stddevs)
    set_encoder(vae, np.eye(K) / (1 + variance), np.zeros(K), np.full(K, math.sqrt(variance / (1 + variance))))
    y = centre + 0.6 * math.sqrt(variance) * np.random.default_rng(5 + seed).standard_normal((N, K))
    return problem(vae, y, mixture_log_likelihood(vae, torch.tensor(y, dtype=torch.float32)))


KINDS: dict[str, Kind] = {
    "needle_few_draws": few_draws,
    "needle_each_start_its_own": its_own,
    "needle_each_start_its_own_by_row": partial(its_own, half=0.13),
    "needle_rare_component": rare_component,
    "needle_funnel": behind_a_funnel,
    "needle_funnel_wide": partial(behind_a_funnel, funnel=0.3),
    "needle_hidden_3": partial(behind_a_funnel, K=3, needle=0.012, share=0.08),
}
