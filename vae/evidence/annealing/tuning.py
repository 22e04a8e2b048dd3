"""Step sizes and spacing of temperatures for annealing, found on pilot rows and then frozen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from vae.distributions.noise import generator
from vae.evidence.annealing.hmc import Transition
from vae.evidence.annealing.path import Path, Point, path_of
from vae.evidence.annealing.temperatures import Annealing, ChainNoise
from vae.evidence.estimate import Advance, ignore

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

ROWS, CHAINS, PASSES = 32, 4, 3
KNOTS = 129
EVEN = 0.1  # share of the temperatures that stay where they were
SMALLEST_BETA, GRID = 1e-14, 4000
LEAST_UPDATES = 20  # of each range's step size
LEAST_TARGET, ADAPTATION = 0.8, 1.0


@torch.no_grad()
def tune_step_sizes(
    vae: LatentModel, y: Tensor | None = None, *, annealing: Annealing | None = None, seed: int = 0, advance: Advance = ignore
) -> Annealing:
    """``annealing`` with step sizes that accept 80 % or more of the proposals, and temperatures where weights spread.

    Step sizes adapt, one for each range of temperatures, while pilot chains with their own noise run, and are then frozen:
    adapted inside the chains that count they would bias the weights. Temperatures are spaced so that each adds as much to the
    standard deviation of the log weights: of all spacings this makes their variance least where chains mix well (Gelman and
    Meng 1998, section 4.4; Grosse, Maddison and Salakhutdinov 2013, section 3).

    Args:
        vae: The model.
        y: Pilot rows, such as validation rows; 32 that the model generates by default.
        annealing: The settings to tune for.
        seed: Of the pilot's noise.
        advance: Called with the number of (row, temperature) pairs done.
    """
    annealing = replace(annealing or Annealing(), step_sizes=None, knots=None)
    rows = cast("Tensor", vae.generate(ROWS, seed=pilot_seed(seed))) if y is None else vae.as_rows(y)[:ROWS]
    first = _knots_of_normal(path_of(vae, rows, annealing.start, annealing.widen))
    annealing = replace(annealing, step_sizes=(_quarter_period(annealing.leapfrog_steps),) * annealing.ranges, knots=first)
    updates = (annealing.temperatures - 2) // max(1, annealing.ranges)  # of a step size in a pass
    passes = max(PASSES, math.ceil(LEAST_UPDATES / updates)) if updates else 0  # none where there is no transition
    for number in range(passes):
        steps, spreads = _adapt(vae, rows, annealing, seed, f"pilot {number}")
        knots = _knots(annealing.betas, spreads) if number < passes - 1 else annealing.knots
        annealing = replace(annealing, step_sizes=tuple(steps), knots=knots)
        advance(annealing.temperatures * len(rows))
    return annealing


def pilot_seed(seed: int) -> int:
    """The seed of the pilot rows: with ``seed`` itself they would be the very rows of the bounds on simulated data."""
    return generator(seed, "pilot rows").initial_seed()


def _adapt(vae: LatentModel, y: Tensor, annealing: Annealing, seed: int, stream: str) -> tuple[list[float], list[float]]:
    """Step sizes by range, the geometric mean of those used while they follow the acceptance rate; each step's `_spread`."""
    path = path_of(vae, y, annealing.start, annealing.widen)
    noise = ChainNoise(path, seed, stream, torch.arange(len(y)), CHAINS)
    point = path.at(path.position(path.start.transform(noise.start())))
    assert annealing.step_sizes is not None
    factors, trace = [1.0] * annealing.ranges, [list[float]() for _ in range(annealing.ranges)]
    spreads = [_spread(point)]
    target = _target(point.z.shape[2], annealing.leapfrog_steps)
    for t, beta in enumerate(annealing.betas[1:-1], 1):
        r = annealing.range_of(t)
        step_size = annealing.step_sizes[r] * factors[r]  # without jitter, which a lone temperature would absorb
        point, accepted = Transition(path, beta, step_size, annealing.leapfrog_steps)(point, noise.at(t))
        factors[r] *= math.exp(ADAPTATION * (accepted.double().mean().item() - target))
        trace[r].append(math.log(factors[r]))
        spreads.append(_spread(point))
    sizes = [size * math.exp(math.fsum(logs) / len(logs)) for size, logs in zip(annealing.step_sizes, trace, strict=True)]
    return sizes, spreads


def _quarter_period(leapfrog_steps: int) -> float:
    """The step size by which a trajectory through a standard normal density is a quarter of its period long.

    Such a trajectory ends about independently of its beginning; of those of half a period, which would be accepted nearly as
    often, no number changes a position's distance from the centre.
    """
    return math.pi / (2 * leapfrog_steps)


def _target(K: int, leapfrog_steps: int) -> float:
    """The acceptance rate of trajectories of a quarter of a period in K dimensions, or 80 % if that is less.

    The leapfrog integrator's energy errs by h^2 / 8 (|z'|^2 - |z|^2), and a proposal whose energy errs normally with variance
    2 m about m is accepted with probability erfc(sqrt(m) / 2) (Neal 2011, section 5.4.3).
    """
    rate = math.erfc(math.sqrt(2 * K) * _quarter_period(leapfrog_steps) ** 2 / 16)
    return max(rate, LEAST_TARGET)


def _spread(point: Point) -> float:
    """Standard deviation over a row's chains of what its log weight grows by with beta, averaged over rows; 0 if unknown."""
    deviations = point.log_ratio.double().std(dim=0)
    return deviations[deviations.isfinite()].mean().nan_to_num(0.0).item()


def _knots_of_normal(path: Path) -> tuple[float, ...]:
    """`_knots` if the posterior were normal, with the precision and the mode that its log density has at the path's centre.

    From a standard normal density to one with precisions d and means m, the log weights grow by beta with the variance
    sum_k ((d_k - 1) / v_k)^2 / 2 + (d_k m_k)^2 / v_k^3, v_k = 1 - beta + beta d_k.
    """
    betas = np.concatenate([[0.0], np.geomspace(SMALLEST_BETA, 1, GRID)])
    d, m = (part.double().cpu().numpy() for part in (path.frame.precision, path.frame.mode))
    variances = np.zeros((len(betas), len(d)))
    for dk, mk in zip(d.T, m.T, strict=True):
        v = 1 - betas[:, None] + betas[:, None] * dk
        variances += ((dk - 1) / v) ** 2 / 2 + (dk * mk) ** 2 / v**3
    return _knots(list(betas), list(np.sqrt(variances).mean(axis=1)[:-1]))


def _knots(betas: list[float], spreads: list[float]) -> tuple[float, ...]:
    """Values of beta that cut the sum of spread times difference of beta into equal parts."""
    parts = np.diff(betas) * spreads
    total = parts.sum()
    even = np.full(len(parts), 1 / len(parts))
    parts = EVEN * even + (1 - EVEN) * parts / total if total > 0 else even
    way = np.concatenate([[0.0], parts.cumsum()])
    return tuple(np.interp(np.linspace(0, 1, KNOTS), way / way[-1], betas).tolist())
