"""The integral of p(y|z) p(z) over one or two latent dimensions, by the trapezoidal rule on two grids.

A window w(z) around each example's mode splits the integrand. w times it is summed on a grid in the coordinates of the mode's
curvature, as fine as the posterior is narrow; 1 - w times it on a coarse grid over the prior that all examples share, which
finds other modes. For smooth integrands that vanish at the edges both sums converge faster than any power of the
spacing (Trefethen and Weideman 2014). Each grid is refined until its halved spacing changes log p by less than 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap
from torch.special import log_ndtr

from vae.evidence.density import all_pairs, paired
from vae.evidence.estimate import Advance

if TYPE_CHECKING:
    from vae.model import VAE

DIMENSIONS = (1, 2)
TOLERANCE = 1e-8
REACH = 9.0  # the prior's density beyond is e^-40 of its peak
WINDOW, EDGE, LOCAL_REACH = 9.0, 0.5, 13.0  # of the window, in standard deviations of the mode's curvature
LEVELS = {  # spacings of the local grid in those standard deviations, and of the global grid in units of z
    1: [(2.0**-level, 2.0 ** -(8 + level)) for level in range(1, 8)],
    2: [(2.0**-level, 2.0 ** -(3 + level)) for level in range(1, 4)],
}
NEWTON_STEPS, LEAST_CURVATURE = 50, 0.25
PAIRS = 2**21  # pairs of a grid point and a row that are scored together


class Modes(NamedTuple):
    """Where the posteriors of N rows peak, (N, K), and roots A of their covariances there, A A' = (-Hessian)^-1, (N, K, K)."""

    centre: Tensor
    root: Tensor

    def distance(self, z: Tensor) -> Tensor:
        """Of z (P, 1, K) from the modes, in standard deviations, (P, N)."""
        return torch.einsum("nij,pnj->pni", torch.linalg.inv(self.root), z - self.centre).norm(dim=-1)


@torch.no_grad()
def quadrature(vae: VAE, y: Tensor, *, advance: Advance) -> Tensor:
    """log p(y) per row of y (N, D), shape (N,), for a model in float64; NaN where the sums do not settle."""
    modes = _modes(vae, y)
    result = torch.full((len(y),), math.nan, dtype=y.dtype, device=y.device)
    open_rows = torch.arange(len(y), device=y.device)
    before = _integral(vae, y, modes, *LEVELS[vae.card.latent_dim][0])
    for level in LEVELS[vae.card.latent_dim][1:]:
        now = _integral(vae, y[open_rows], Modes(*(part[open_rows] for part in modes)), *level)
        settled = (now - before).abs() < TOLERANCE
        result[open_rows[settled]] = now[settled]
        open_rows, before = open_rows[~settled], now[~settled]
        advance(int(settled.sum()))
        if not len(open_rows):
            break
    advance(len(open_rows))
    return result


def _integral(vae: VAE, y: Tensor, modes: Modes, local: float, coarse: float) -> Tensor:
    return torch.logaddexp(_inside(vae, y, modes, local), _outside(vae, y, modes, coarse))


def _inside(vae: VAE, y: Tensor, modes: Modes, spacing: float) -> Tensor:
    """The windowed integral around the modes, log, (N,)."""
    K, prior, log_likelihood = modes.centre.shape[1], vae.prior(), paired(vae.generative, y)
    u = _grid(LOCAL_REACH, spacing, modes.centre)
    u = u[u.norm(dim=-1) <= LOCAL_REACH]
    total = torch.full((len(y),), -math.inf, dtype=y.dtype, device=y.device)
    for some in u.split(max(1, PAIRS // (len(y) * vae.card.data_dim))):
        z = modes.centre + torch.einsum("nij,pj->pni", modes.root, some)
        window = log_ndtr((WINDOW - some.norm(dim=-1)) / EDGE)
        total = torch.logaddexp(total, (log_likelihood(z) + prior.log_prob(z) + window[:, None]).logsumexp(dim=0))
    return total + K * math.log(spacing) + torch.linalg.slogdet(modes.root).logabsdet


def _outside(vae: VAE, y: Tensor, modes: Modes, spacing: float) -> Tensor:
    """The rest of the integral, log, (N,)."""
    total = torch.full((len(y),), -math.inf, dtype=y.dtype, device=y.device)
    for z, log_joint in _global_scores(vae, y, spacing):
        rest = log_ndtr((modes.distance(z[:, None]) - WINDOW) / EDGE)
        total = torch.logaddexp(total, (log_joint + rest).logsumexp(dim=0))
    return total + modes.centre.shape[1] * math.log(spacing)


def _global_scores(vae: VAE, y: Tensor, spacing: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Points z (P, K) of the grid over the prior, and log p(y, z) (P, N) there."""
    prior, z = vae.prior(), _grid(REACH, spacing, vae.prior().mean)
    pairs = all_pairs(vae.generative, y, z)
    for some in z.split(max(1, PAIRS // len(y))):
        yield some, pairs.at(some)(slice(None)) + pairs.offset + prior.log_prob(some)[:, None]


def _grid(reach: float, spacing: float, like: Tensor) -> Tensor:
    """Points (P, K) from -reach to reach along each axis, like a tensor whose last dimension is K."""
    count = round(reach / spacing)
    axis = spacing * torch.arange(-count, count + 1, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(*[axis] * like.shape[-1]).reshape(-1, like.shape[-1])


def _modes(vae: VAE, y: Tensor) -> Modes:
    """Newton's method with damping, from the best point of a coarse global grid or from q's mean, whichever is better."""

    def log_joint(z: Tensor, row: Tensor) -> Tensor:
        return vae.generative(z).log_prob(row) + vae.prior().log_prob(z)

    value, slope, curvature = vmap(log_joint), vmap(grad(log_joint)), vmap(hessian(log_joint))
    z = _best_start(vae, y, value)
    damping = torch.ones(len(y), 1, dtype=y.dtype, device=y.device)
    for _ in range(NEWTON_STEPS):
        eigenvalues, axes = torch.linalg.eigh(-curvature(z, y))
        step = torch.einsum("nij,nj,nkj,nk->ni", axes, 1 / (eigenvalues.abs() + damping), axes, slope(z, y))
        better = (value(z + step, y) > value(z, y))[:, None]
        z, damping = torch.where(better, z + step, z), torch.where(better, damping / 8, damping * 4)
    eigenvalues, axes = torch.linalg.eigh(-curvature(z, y))
    return Modes(z, axes * eigenvalues.clamp_min(LEAST_CURVATURE).rsqrt()[:, None, :])


def _best_start(vae: VAE, y: Tensor, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    best = vae.inference(y).mean
    best_value = value(best, y).nan_to_num(-math.inf)
    for z, scores in _global_scores(vae, y, LEVELS[vae.card.latent_dim][0][1]):
        top, where = scores.max(dim=0)
        better = top > best_value
        best, best_value = torch.where(better[:, None], z[where], best), torch.where(better, top, best_value)
    return best
