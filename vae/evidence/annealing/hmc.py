"""Hamiltonian transitions that leave annealed densities invariant.

Between a start density pi_0(z) (q(z|y) or the prior) at beta = 0 and p(y, z) at beta = 1 lie the densities proportional to
pi_0(z)^(1 - beta) p(y, z)^beta. Latents have shape (C, N, K): C chains for each of N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vae.evidence.annealing.path import Path, Point


@dataclass(frozen=True)
class Transition:
    """A Metropolis-corrected Hamiltonian transition at one temperature (Neal 2011, section 5.3).

    Attributes:
        path: The annealed densities.
        beta: Which of them.
        step_size: In standard deviations, which the path's frame says.
        leapfrog_steps: Steps of the leapfrog integrator.
    """

    path: Path
    beta: float
    step_size: float
    leapfrog_steps: int

    def __call__(self, point: Point, noise: Tensor) -> tuple[Point, Tensor]:
        """The next point, and which chains accepted (C, N); ``noise`` (C, N, K + 1) is standard normal.

        The last coordinate of the noise decides on acceptance, through its distribution function. A proposal whose density is
        not a number is rejected.
        """
        momentum, log_uniform = noise[..., :-1], torch.special.log_ndtr(noise[..., -1])
        proposal, end = self._leapfrog(point, momentum)
        gain = proposal.log_density(self.beta) - end.square().sum(-1) / 2
        accepted = log_uniform < gain - (point.log_density(self.beta) - momentum.square().sum(-1) / 2)
        chosen = (
            torch.where(accepted if old.ndim == 2 else accepted[..., None], new, old)
            for new, old in zip(proposal, point, strict=True)
        )
        return Point(*chosen), accepted

    def _leapfrog(self, point: Point, momentum: Tensor) -> tuple[Point, Tensor]:
        path, frame, beta, h = self.path, self.path.frame, self.beta, self.step_size
        z, momentum = point.z, momentum + h / 2 * frame.force(point.gradient(beta), beta)
        for _ in range(self.leapfrog_steps - 1):
            z = z + h * frame.displacement(momentum, beta)
            momentum = momentum + h * frame.force(path.gradient(z, beta), beta)
        point = path.at(z + h * frame.displacement(momentum, beta))
        return point, momentum + h / 2 * frame.force(point.gradient(beta), beta)
