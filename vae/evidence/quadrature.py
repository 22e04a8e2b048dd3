"""The integral of p(y|z) p(z) over one or two latent dimensions, by the trapezoidal rule on two grids.

A window w(z) around each mode of an example's posterior splits the integrand. w times it is summed on a grid in the
coordinates of the mode's curvature, as fine as the mode is narrow; what is outside all windows on a coarse grid over the
prior that all examples share. For smooth integrands that vanish at the edges both sums converge faster than any power of the
spacing (Trefethen and Weideman 2014). Each grid is refined until its halved spacing changes log p by less than 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, max_pool2d
from torch.special import log_ndtr

from vae.evidence.density import all_pairs, paired
from vae.evidence.estimate import Advance

if TYPE_CHECKING:
    from vae.latent_model import LatentModel

DIMENSIONS = (1, 2)
TOLERANCE = 1e-8
REACH = 9.0  # of the grid over the prior, in its scale: a normal density beyond is e^-40 of its peak
WINDOW, EDGE, LOCAL_REACH = 9.0, 0.5, 13.0  # of the window, in standard deviations of the mode's curvature
LEVELS = {  # spacings of the local grid in those standard deviations, and of the global grid in the prior's scale
    1: [(2.0**-level, 2.0 ** -(8 + level)) for level in range(1, 8)],
    2: [(2.0**-level, 2.0 ** -(2 + level)) for level in range(1, 5)],
}
NEWTON_STEPS, LEAST_CURVATURE = 50, 0.25
START_SPACING = {1: 2.0**-9, 2: 2.0**-4}  # of the grid on which modes are looked for, likewise
STARTS = 8  # places to look for modes from, beside q's mean
NUMBERS = 2**22  # in the widest tensor: 32 MiB


class Mode(NamedTuple):
    """A peak of the posterior of each of N rows (N, K), and a root A of its covariance, A A' = (-Hessian)^-1 (N, K, K)."""

    centre: Tensor
    root: Tensor

    def of(self, rows: Tensor) -> Mode:
        """Of some rows."""
        return Mode(self.centre[rows], self.root[rows])

    def log_outside(self, z: Tensor) -> Tensor:
        """log(1 - w) of z (P, N or 1, K), (P, N)."""
        standard = torch.einsum("nij,pnj->pni", torch.linalg.inv(self.root), z - self.centre)
        return log_ndtr((standard.norm(dim=-1) - WINDOW) / EDGE)


@torch.no_grad()
def quadrature(vae: LatentModel, y: Tensor, *, advance: Advance) -> Tensor:
    """log p(y) per row of y (N, D), shape (N,), for a model in float64; NaN where the sums do not settle."""
    modes = _modes(_LogJoint(vae, y))
    result = torch.full((len(y),), math.nan, dtype=y.dtype, device=y.device)
    rows = torch.arange(len(y), device=y.device)
    first, *finer = LEVELS[vae.card.latent_size]
    before = _integral(vae, y, modes, *first)
    for level in finer:
        now = _integral(vae, y[rows], [mode.of(rows) for mode in modes], *level)
        settled = (now - before).abs() < TOLERANCE
        result[rows[settled]] = now[settled]
        rows, before = rows[~settled], now[~settled]
        advance(int(settled.sum()))
        if not len(rows):
            break
    advance(len(rows))
    return result


def _integral(vae: LatentModel, y: Tensor, modes: list[Mode], local: float, coarse: float) -> Tensor:
    """Log of the sum of the windows' parts, each outside the windows before it, and of the rest, (N,)."""
    total = _outside(vae, y, modes, coarse)
    for number, mode in enumerate(modes):
        rows = mode.centre.isfinite().all(dim=-1).nonzero()[:, 0]
        if len(rows):
            part = _inside(vae, y[rows], mode.of(rows), [earlier.of(rows) for earlier in modes[:number]], local)
            total[rows] = torch.logaddexp(total[rows], part)
    return total


def _inside(vae: LatentModel, y: Tensor, mode: Mode, earlier: list[Mode], spacing: float) -> Tensor:
    """The integral within the window of a mode, log, (N,)."""
    prior, log_likelihood = vae.prior(), paired(vae.generative, y)
    u = _grid(LOCAL_REACH, spacing, mode.centre)
    u = u[u.norm(dim=-1) <= LOCAL_REACH]
    total = torch.full((len(y),), -math.inf, dtype=y.dtype, device=y.device)
    for some in u.split(_points(vae, len(y))):
        z = mode.centre + torch.einsum("nij,pj->pni", mode.root, some)
        window = log_ndtr((WINDOW - some.norm(dim=-1)) / EDGE)[:, None] + _log_outside(earlier, z)
        total = torch.logaddexp(total, (log_likelihood(z) + prior.log_prob(z) + window).logsumexp(dim=0))
    return total + mode.centre.shape[1] * math.log(spacing) + torch.linalg.slogdet(mode.root).logabsdet


def _outside(vae: LatentModel, y: Tensor, modes: list[Mode], spacing: float) -> Tensor:
    """The integral outside all windows, log, (N,)."""
    total = torch.full((len(y),), -math.inf, dtype=y.dtype, device=y.device)
    for z, log_joint in _global_scores(vae, y, spacing):
        total = torch.logaddexp(total, (log_joint + _log_outside(modes, z[:, None])).logsumexp(dim=0))
    return total + vae.card.latent_size * math.log(spacing) + vae.prior().extent[1].log().sum()


def _log_outside(modes: list[Mode], z: Tensor) -> Tensor:
    """Log of the product of 1 - w over modes; those that a row does not have (NaN) leave everything outside."""
    outside = torch.zeros((*z.shape[:1], 1), dtype=z.dtype, device=z.device)
    for mode in modes:
        outside = outside + mode.log_outside(z).nan_to_num(0.0, neginf=-math.inf)
    return outside


def _points(vae: LatentModel, N: int) -> int:
    """Points that may be scored together for N rows."""
    return max(1, NUMBERS // (N * max(vae.card.data_dim, vae.card.generative.widest(vae.card.shape))))


def _global_scores(vae: LatentModel, y: Tensor, spacing: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Points z (P, K) of the grid over the prior, and log p(y, z) (P, N) there."""
    prior, z = vae.prior(), _over_prior(vae, spacing)
    pairs = all_pairs(vae.generative, y, z)
    for some in z.split(min(_points(vae, 1), max(1, NUMBERS // (8 * len(y))))):
        yield some, pairs.at(some)(slice(None)) + pairs.offset + prior.log_prob(some)[:, None]


def _over_prior(vae: LatentModel, spacing: float) -> Tensor:
    """Points (P, K) of a grid over the box that holds the prior, the spacing in units of its scale."""
    centre, scale = vae.prior().extent
    return centre + scale * _grid(REACH, spacing, centre)


def _grid(reach: float, spacing: float, like: Tensor) -> Tensor:
    """Points (P, K) from -reach to reach along each axis, like a tensor whose last dimension is K."""
    count = round(reach / spacing)
    axis = spacing * torch.arange(-count, count + 1, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(*[axis] * like.shape[-1]).reshape(-1, like.shape[-1])


class _LogJoint:
    """log p(y_n, z_n) for latents z (N, K)."""

    def __init__(self, vae: LatentModel, y: Tensor) -> None:
        self.vae, self.y = vae, y

    def __call__(self, z: Tensor) -> Tensor:
        return self.vae.generative(z).log_prob(self.y) + self.vae.prior().log_prob(z)

    @torch.enable_grad()
    def shape(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (N, K), and eigenvalues (N, K) and axes (N, K, K) of the negative Hessian."""
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self(z).sum(), z, create_graph=True)
        rows = [torch.autograd.grad(slope[:, k].sum(), z, retain_graph=True)[0] for k in range(z.shape[1])]
        eigenvalues, axes = torch.linalg.eigh(-torch.stack(rows, dim=1))
        return slope.detach(), eigenvalues, axes


def _modes(log_joint: _LogJoint) -> list[Mode]:
    """The modes of each row that the coarse grid and q's mean lead to, the best first; NaN where a row has no more."""
    found = [(mode := _climb(log_joint, start), log_joint(mode.centre)) for start in _starts(log_joint)]
    order = torch.stack([value.nan_to_num(-math.inf) for _, value in found]).argsort(dim=0, descending=True)
    rows = torch.arange(order.shape[1], device=order.device)
    centres, roots = (torch.stack([getattr(mode, name) for mode, _ in found]) for name in Mode._fields)
    modes: list[Mode] = []
    for place in order:
        mode = Mode(centres[place, rows], roots[place, rows])
        seen = (_log_outside(modes, mode.centre[None])[0] < math.log(0.5)).expand(len(rows))
        modes.append(Mode(*(part.masked_fill(seen.view(-1, *[1] * (part.ndim - 1)), math.nan) for part in mode)))
    return [mode for mode in modes if mode.centre.isfinite().any()]


def _climb(log_joint: _LogJoint, z: Tensor) -> Mode:
    """Newton's method with damping from z (N, K); a NaN start stays one."""
    damping = torch.ones(len(z), 1, dtype=z.dtype, device=z.device)
    missing, z = z.isnan(), z.nan_to_num(0.0)
    for _ in range(NEWTON_STEPS):
        slope, eigenvalues, axes = log_joint.shape(z)
        step = torch.einsum("nij,nj,nkj,nk->ni", axes, 1 / (eigenvalues.abs() + damping), axes, slope)
        better = (log_joint(z + step) > log_joint(z))[:, None]
        z, damping = torch.where(better, z + step, z), torch.where(better, damping / 8, damping * 4)
    _, eigenvalues, axes = log_joint.shape(z)
    return Mode(z.masked_fill(missing, math.nan), axes * eigenvalues.clamp_min(LEAST_CURVATURE).rsqrt()[:, None, :])


def _starts(log_joint: _LogJoint) -> list[Tensor]:
    """Where modes may be: q's mean, and the highest local maxima of log p(y, z) on the coarse grid, each (N, K).

    log p(y, z) has the scale of the network, not of the posterior: its maxima show where the posterior is far too narrow to.
    """
    vae, y = log_joint.vae, log_joint.y
    spacing, K = START_SPACING[vae.card.latent_size], vae.card.latent_size
    grid = _over_prior(vae, spacing)
    side = round(len(grid) ** (1 / K))
    tops = []
    for some in y.split(max(1, NUMBERS // len(grid))):
        scores = torch.cat([log_joint for _, log_joint in _global_scores(vae, some, spacing)]).T.reshape(-1, *[side] * K)
        pool = max_pool1d if K == 1 else max_pool2d
        highest = pool(scores[:, None], 3, stride=1, padding=1)[:, 0]
        peaks = scores.masked_fill(scores < highest, -math.inf).flatten(1).topk(STARTS)
        tops.append(grid[peaks.indices].masked_fill(peaks.values.isinf()[..., None], math.nan))
    return [vae.inference(y).mean, *torch.cat(tops).unbind(dim=1)]
