"""Step sizes for annealing, found on pilot rows and then frozen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vae.evidence.estimate import Advance, ignore
from vae.evidence.hmc import Transition, path_of
from vae.evidence.schedule import Annealing, Noise
from vae.noise import generator

if TYPE_CHECKING:
    from vae.latent_model import LatentModel

ROWS, CHAINS, PASSES = 32, 4, 2
LEAST_UPDATES = 20  # of each range's step size
TARGET_ACCEPTANCE, FIRST_STEP_SIZE, ADAPTATION = 0.8, 0.3, 1.0


@torch.no_grad()
def tune_step_sizes(
    vae: LatentModel, y: Tensor | None = None, *, annealing: Annealing | None = None, seed: int = 0, advance: Advance = ignore
) -> Annealing:
    """``annealing`` with step sizes that accept 80 % of the proposals in each range of temperatures, on pilot rows.

    The sizes adapt while pilot chains with their own noise run, and are then frozen: adapted inside the chains that count they
    would bias the weights.

    Args:
        vae: The model.
        y: Pilot rows, such as validation rows; 32 that the model generates by default.
        annealing: The settings to tune for.
        seed: Of the pilot's noise.
        advance: Called with the number of (row, temperature) pairs done.
    """
    annealing = replace(annealing or Annealing(), step_sizes=None)
    rows = cast("Tensor", vae.generate(ROWS, seed=_own_seed(seed))) if y is None else vae.as_rows(y)[:ROWS]
    steps = [FIRST_STEP_SIZE] * annealing.ranges
    for number in range(_passes(annealing)):
        steps = _adapt(vae, rows, replace(annealing, step_sizes=tuple(steps)), seed, f"pilot {number}")
        advance(annealing.temperatures * len(rows))
    return replace(annealing, step_sizes=tuple(steps))


def _adapt(vae: LatentModel, y: Tensor, annealing: Annealing, seed: int, stream: str) -> list[float]:
    """Step sizes by range: the geometric mean of those used while they follow the acceptance rate."""
    path = path_of(vae, y, annealing.start)
    noise = Noise(path, seed, stream, torch.arange(len(y)), CHAINS)
    point = path.at(path.position(path.start.transform(noise.start())))
    assert annealing.step_sizes is not None
    factors, trace = [1.0] * annealing.ranges, [list[float]() for _ in range(annealing.ranges)]
    for t, beta in enumerate(annealing.betas[1:-1], 1):
        r = annealing.range_of(t)
        step_size = annealing.step_sizes[r] * factors[r]  # without jitter, which a lone temperature would absorb
        point, accepted = Transition(path, beta, step_size, annealing.leapfrog_steps)(point, noise.at(t))
        factors[r] *= math.exp(ADAPTATION * (accepted.double().mean().item() - TARGET_ACCEPTANCE))
        trace[r].append(math.log(factors[r]))
    return [size * math.exp(sum(logs) / len(logs)) for size, logs in zip(annealing.step_sizes, trace, strict=True)]


def _own_seed(seed: int) -> int:
    """Of the pilot rows: with ``seed`` itself they would be the very rows of the bounds on simulated data."""
    return generator(seed, "pilot rows").initial_seed()


def _passes(annealing: Annealing) -> int:
    """More of them where few temperatures share a step size, none where there is no transition."""
    updates = (annealing.temperatures - 2) // max(1, annealing.ranges)
    return max(PASSES, math.ceil(LEAST_UPDATES / updates)) if updates else 0
