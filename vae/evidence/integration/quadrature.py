"""The integral of p(y|z) p(z) over one or two latent dimensions, cell by cell, each divided until two sums over it agree.

The network's outputs are computed once for a cell, whichever rows need it. For a row a cell is

- left out, if the polynomial through log p(y, z) is resolved there and at its highest so low that all such cells together
  cannot matter, or if the prior is, given the best that p(y|z) has been anywhere;
- summed, if two sums that share no points agree to a part of the tolerance;
- divided otherwise: also where a hidden unit of the network steps between the points, as there a mode could hide.

A row that needs too many cells, or cells that are too small, has no value. Nothing starts from where modes were found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vae.distributions.latent import NormalMixture
from vae.evidence.estimate import Advance
from vae.evidence.integration.cells import Profile, Rule

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

DIMENSIONS = (1, 2)
TOLERANCE = 1e-8  # of the integral, that the two sums may differ by
NEGLIGIBLE = 1e-9  # of the integral, that may be left out
BEND, REACH = 4.0, 24.0  # z = BEND sinh(x / BEND) in the prior's scale, |x| <= REACH: 800 of these, and fine in the middle
ROOTS = 8  # cells along each axis, to begin with
LEVELS = 40  # of halving
CELLS = 2**13  # of a row, that may wait for their division
UNSEEN = 10.0  # nats by which p(y|z) may be above all that was seen of it where the prior alone rules a cell out
COMPONENT = 6.0  # standard deviations of a prior's component that cells near it may be wide
NUMBERS = 2**18  # in the widest tensor: 32 MiB
ROWS = 2**12  # at a time


class Sums(NamedTuple):
    """Integrals of rows, all (N,).

    Attributes:
        log_likelihood: In nats; NaN where there is no value.
        crowded: Whether that is for too many cells.
    """

    log_likelihood: Tensor
    crowded: Tensor


class Waiting(NamedTuple):
    """What is still to be summed: cells (C, K) as whole numbers, counted from the box's corner, and who needs which.

    Attributes:
        cell: Place in ``cells`` of each of M pairs of a cell and a row, in ascending order, (M,).
        row: Of each pair, (M,).
    """

    cells: Tensor
    cell: Tensor
    row: Tensor


class Survey(NamedTuple):
    """What is known of M pairs of a cell and a row, all (M,).

    Attributes:
        profile: Of p(y, z).
        best: The highest log p(y|z) in the cell's points.
        prior: log of what the integral of p(z) over the cell can be at most; infinite where that is not known.
    """

    profile: Profile
    best: Tensor
    prior: Tensor


@torch.no_grad()
def quadrature(vae: LatentModel, y: Tensor, *, advance: Advance) -> Sums:
    """log p(y) per row of y (N, D), for a model in float64."""
    parts = [_Division(vae, rows).sums(advance) for rows in y.split(ROWS)]
    return Sums(*(torch.cat(values) for values in zip(*parts, strict=True)))


class _Division:
    """The division of the box for rows y (N, D), which goes on until nothing is waiting.

    Attributes, all (N,):
        total: log of what is summed.
        spent: log of the differences between the two sums in it.
        least: log of what the integral is at least.
        best: The highest log p(y|z) seen.
    """

    def __init__(self, vae: LatentModel, y: Tensor) -> None:
        self.landscape, self.N = Landscape(vae, y), len(y)
        self.total, self.spent, self.least, self.best = y.new_full((4, self.N), -math.inf)
        self.crowded = torch.zeros(self.N, dtype=torch.bool, device=y.device)

    def sums(self, advance: Advance) -> Sums:
        """The integrals."""
        waiting, missing = self.landscape.roots(), self.N
        for level in range(LEVELS):
            waiting = self._divided(waiting, level)
            left = len(waiting.row.unique())
            advance(missing - left)
            missing = left
            if not left:
                break
        advance(missing)
        refused = self.crowded | (self.total < self.least - TOLERANCE)
        refused[waiting.row] = True
        return Sums(self.total.masked_fill(refused, math.nan), self.crowded)

    def _divided(self, waiting: Waiting, level: int) -> Waiting:
        """What waits after the cells of a level, of which some are summed, some left out and some divided."""
        survey, row = self.landscape.survey(waiting, level), waiting.row
        profile = survey.profile
        self.best = self.best.scatter_reduce(0, row, survey.best, "amax")
        self.least = self.least.scatter_reduce(0, row, profile.least.where(profile.resolved, -math.inf), "amax")
        known = torch.maximum(self.least, self.total)
        negligible = known[row] + math.log(NEGLIGIBLE) - self.landscape.K * math.log(ROOTS * 2**level)
        out = profile.resolved & (profile.highest <= negligible)
        out |= survey.prior + self.best[row] + UNSEEN <= negligible
        direct, other = profile.direct, profile.by_polynomial
        difference = torch.maximum(direct, other) + (-torch.expm1(-(direct - other).abs())).log()
        error = difference.where(profile.close, profile.highest.where(profile.resolved, math.inf))
        error = error.masked_fill(out, -math.inf).nan_to_num(math.inf, math.inf, -math.inf)
        count = torch.bincount(row[~out], minlength=self.N)
        left = known + (TOLERANCE - (self.spent - known).exp()).log()
        fits = self._log_sum(row, error) <= left
        summed = ~out & (fits[row] | (error <= (left - (2 * count).log())[row]))
        self.total = torch.logaddexp(self.total, self._log_sum(row[summed], direct[summed]))
        self.spent = torch.logaddexp(self.spent, self._log_sum(row[summed], error[summed]))
        divided = ~out & ~summed
        self.crowded |= torch.bincount(row[divided], minlength=self.N) > CELLS
        return _halves(waiting, divided & ~self.crowded[row])

    def _log_sum(self, row: Tensor, values: Tensor) -> Tensor:
        """log of the sums of exp(values) over each row, (N,)."""
        top = torch.full_like(self.total, -math.inf).scatter_reduce(0, row, values, "amax")
        shift = top.nan_to_num(0.0, 0.0, 0.0)
        return shift + torch.zeros_like(top).scatter_add(0, row, (values - shift[row]).exp()).log()


class Landscape:
    """log p(y, z) over cells, for rows y (N, D)."""

    def __init__(self, vae: LatentModel, y: Tensor) -> None:
        self.vae, self.y, self.prior = vae, y, vae.prior()
        self.K = vae.card.latent_size
        self.rule = Rule(self.K, y)
        self.centre, self.scale = self.prior.extent
        self.widest = max(vae.card.data_dim, vae.card.generative.widest(vae.card.shape), vae.prior.widest)

    def roots(self) -> Waiting:
        """All cells to begin with, for all rows."""
        axis = torch.arange(ROOTS, device=self.y.device)
        cells = torch.cartesian_prod(*[axis] * self.K).reshape(-1, self.K)
        rows = torch.arange(len(self.y), device=self.y.device)
        return Waiting(cells, *torch.cartesian_prod(torch.arange(len(cells), device=rows.device), rows).T.contiguous())

    def survey(self, waiting: Waiting, level: int) -> Survey:
        """What is known of cells of a level, found for so many of them at a time."""
        P, parts = len(self.rule.points), []
        count = max(1, NUMBERS // (P * self.widest))
        pairs = max(1, NUMBERS // (P * self.vae.card.data_dim))
        for first in range(0, len(waiting.cells), count):
            ground = self._ground(waiting.cells[first : first + count], level)
            low, high = torch.searchsorted(waiting.cell, waiting.cell.new_tensor([first, first + count])).tolist()
            groups = torch.arange(low, high, device=self.y.device).split(pairs)
            parts += [self._survey(ground, waiting.cell[group] - first, self.y[waiting.row[group]]) for group in groups]
        profiles, *others = zip(*parts, strict=True)
        return Survey(Profile(*map(torch.cat, zip(*profiles, strict=True))), *map(torch.cat, others))

    def _survey(self, ground: Ground, cell: Tensor, y: Tensor) -> Survey:
        """What is known of pairs of a cell and a row of y."""
        log_likelihood = self.vae.generative.likelihood(ground.features[cell]).log_prob(y[:, None])
        profile = self.rule.profile(log_likelihood + ground.log_prior[cell])
        smooth = ground.smooth[cell]
        profile = profile._replace(resolved=profile.resolved & smooth, close=profile.close & smooth)
        return Survey(profile, log_likelihood.amax(dim=1), ground.prior[cell])

    def _ground(self, cells: Tensor, level: int) -> Ground:
        """What the rows have in common on cells."""
        width = 2 * REACH / (ROOTS * 2**level)
        x = width * (cells[:, None] + (self.rule.points + 1) / 2) - REACH
        z = self.centre + self.scale * BEND * (x / BEND).sinh()
        stretch = (self.scale * (x / BEND).cosh() * width / 2).log().sum(dim=-1)
        with _watched(self.vae) as layers:
            features = self.vae.generative.features(z.flatten(0, 1)).unflatten(0, x.shape[:2])
            log_prior = self.prior.log_prob(z.flatten(0, 1)).unflatten(0, x.shape[:2]) + stretch
        steps = [self.rule.steps(units.unflatten(0, x.shape[:2])) for units in layers]
        prior, visible = self.rule.profile(log_prior), ~self._hides_component(z)
        smooth = visible & ~torch.stack([torch.zeros_like(visible), *steps]).any(dim=0)
        return Ground(features, log_prior, smooth, prior.highest.where(prior.resolved & visible, math.inf))

    def _hides_component(self, z: Tensor) -> Tensor:
        """Whether a cell with points z (C, P, K) is too wide for a component of the prior that is near it, (C,)."""
        top = self.prior if self.vae.card.hierarchy is None else self.vae.prior.top()
        if not isinstance(top, NormalMixture):
            return torch.zeros(len(z), dtype=torch.bool, device=z.device)
        own = z[..., -top.means.shape[1] :]
        low, high = own.amin(dim=1)[:, None], own.amax(dim=1)[:, None]
        reach = COMPONENT * top.stddevs
        near = ((low < top.means + reach) & (high > top.means - reach)).all(dim=-1)
        return (near & (high - low > reach).any(dim=-1)).any(dim=1)


class Ground(NamedTuple):
    """What the rows have in common on C cells with P points.

    Attributes:
        features: What the network makes of the points, (C, P, F).
        log_prior: log p(z) dz in these, (C, P).
        smooth: Whether no hidden unit steps between the points, and no component of the prior hides there, (C,).
        prior: log of what the integral of p(z) can be at most, infinite where that is not known, (C,).
    """

    features: Tensor
    log_prior: Tensor
    smooth: Tensor
    prior: Tensor


@contextmanager
def _watched(vae: LatentModel) -> Iterator[list[Tensor]]:
    """Numbers (points, H) of each nonlinear layer of the networks that z goes through, while it does."""
    seen: list[Tensor] = []
    layers = [layer for part in (vae.generative.network, vae.prior) for layer in part.modules()]
    leaves = [layer for layer in layers if not list(layer.children()) and not isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_hook(lambda layer, x, units: seen.append(units.flatten(1))) for layer in leaves]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _halves(waiting: Waiting, divided: Tensor) -> Waiting:
    """The 2^K parts of the cells of some pairs."""
    K = waiting.cells.shape[1]
    halves = torch.cartesian_prod(*[torch.arange(2, device=divided.device)] * K).reshape(-1, K)
    parts = (2 * waiting.cells[waiting.cell[divided]][:, None] + halves).flatten(0, 1)
    cells, cell = parts.unique(dim=0, return_inverse=True)
    order = cell.argsort(stable=True)
    return Waiting(cells, cell[order], waiting.row[divided].repeat_interleave(2**K)[order])
