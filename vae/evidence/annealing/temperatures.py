"""How annealing proceeds: its temperatures, its step sizes and its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from vae.distributions.noise import draws, generator, per_example
from vae.evidence.annealing.path import Path, Start

RANGES = 10
STEEPNESS = 4.0  # of the sigmoid
TEMPERATURES_PER_BLOCK = 16
JITTER = 0.3


@dataclass(frozen=True)
class Annealing:
    """How to anneal.

    Attributes:
        temperatures: Number T of inverse temperatures beta, 0 and 1 among them.
        leapfrog_steps: Of each Hamiltonian transition.
        start: ``"posterior"`` begins at q(z|y), ``"prior"`` at p(z).
        widen: Times the prior's standard deviations that the start has, if it is the prior; of a hierarchy, its top layer's.
        step_sizes: One for each range of temperatures, from `tune_step_sizes`: frozen before the chains run. None tunes them
            on rows that the model generates.
        knots: Values of beta at equal parts of the way from 0 to 1, from there too: temperatures are spaced evenly along it.
            None spaces them by a sigmoid (Wu et al. 2017).

    Raises:
        ValueError: If there are fewer than 2 temperatures or 1 leapfrog step, or the start is unknown.
    """

    temperatures: int = 250
    leapfrog_steps: int = 2
    start: Start = "posterior"
    widen: float = 1.0
    step_sizes: tuple[float, ...] | None = None
    knots: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.temperatures < 2:
            raise ValueError(f"temperatures must be at least 2, the start and the end; got {self.temperatures}")
        if self.leapfrog_steps < 1:
            raise ValueError(f"leapfrog_steps must be at least 1; got {self.leapfrog_steps}")
        if self.start not in get_args(Start):
            raise ValueError(f"start must be one of {', '.join(get_args(Start))}; got {self.start!r}")
        if not self.widen > 0:
            raise ValueError(f"widen must be greater than 0; got {self.widen}")

    @property
    def betas(self) -> list[float]:
        """The schedule, from 0 to 1."""
        if self.knots is not None:
            way = np.linspace(0, 1, self.temperatures)
            return [float(beta) for beta in np.interp(way, np.linspace(0, 1, len(self.knots)), self.knots)]
        x = [STEEPNESS * (2 * t / (self.temperatures - 1) - 1) for t in range(self.temperatures)]
        sigmoid = [1 / (1 + math.exp(-value)) for value in x]
        return [(value - sigmoid[0]) / (sigmoid[-1] - sigmoid[0]) for value in sigmoid]

    @property
    def ranges(self) -> int:
        """Number of ranges of temperatures with a step size and an acceptance rate each."""
        return min(RANGES, self.temperatures - 2)

    def range_of(self, t: int, ranges: int | None = None) -> int:
        """Which of so many equal ranges (`ranges` by default) the transition at temperature t lies in, 1 <= t <= T - 2."""
        return (t - 1) * (ranges or self.ranges) // (self.temperatures - 2)

    def step_size(self, t: int, seed: int) -> float:
        """The step size at temperature t, jittered by up to 30 %, as equal steps resonate with the density."""
        assert self.step_sizes is not None
        jitter = 1 + JITTER * (2 * torch.rand(1, generator=generator(seed, "jitter", t)).item() - 1)
        return self.step_sizes[self.range_of(t, len(self.step_sizes))] * jitter


class ChainNoise:
    """Standard normal noise of the chains of some examples: draws of the start, and (C, N, K + 1) at each temperature."""

    def __init__(self, path: Path, seed: int, stream: str, ids: Tensor, S: int) -> None:
        self._seed, self._stream, self._ids, self._chains = seed, stream, ids, S
        self._like, self._size = path.q.mean, path.q.event_shape[0]
        self._block, self._values = -1, torch.empty(0)

    def start(self) -> Tensor:
        """The start's draws, (C, N, K): in the main stream those that importance sampling begins with."""
        stream = "importance" if self._stream == "annealing" else f"{self._stream} start"
        return torch.cat(list(draws(self._seed, stream, self._ids, self._chains, self._size, self._like)))

    def at(self, t: int) -> Tensor:
        """What the transition at temperature t is made from, (C, N, K + 1)."""
        block, position = divmod(t, TEMPERATURES_PER_BLOCK)
        if block != self._block:
            shape = (TEMPERATURES_PER_BLOCK, self._chains, self._size + 1)
            self._values = per_example(self._seed, self._stream, self._ids, block, shape, self._like)
            self._block = block
        return self._values[position]
