"""Annealed densities and Hamiltonian transitions that leave them invariant.

Between a start density pi_0(z) (q(z|y) or the prior) at beta = 0 and p(y, z) at beta = 1 lie the densities proportional to
pi_0(z)^(1 - beta) p(y, z)^beta. Latents have shape (C, N, K): C chains for each of N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae.chains import Chain
from vae.conditionals import Posterior
from vae.distributions import DiagonalNormal
from vae.evidence.density import paired
from vae.evidence.frame import Frame, frame_of
from vae.latent_distributions import FullNormal, LatentDistribution, normal_log_prob

if TYPE_CHECKING:
    from vae.latent_model import LatentModel

Start = Literal["posterior", "prior"]
Prior = DiagonalNormal | LatentDistribution


class Point(NamedTuple):
    """Positions z (C, N, K), latents or their noise, with log pi_0 and log p(y, z), each (C, N), and gradients (C, N, K)."""

    z: Tensor
    log_start: Tensor
    log_joint: Tensor
    start_gradient: Tensor
    joint_gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        """Log of the annealed density, unnormalised, (C, N)."""
        return (1 - beta) * self.log_start + beta * self.log_joint

    def gradient(self, beta: float) -> Tensor:
        """Its gradient, (C, N, K)."""
        return (1 - beta) * self.start_gradient + beta * self.joint_gradient

    @property
    def log_ratio(self) -> Tensor:
        """log p(y, z) - log pi_0(z), (C, N): the derivative of `log_density` by beta."""
        return self.log_joint - self.log_start


def path_of(vae: LatentModel, y: Tensor, start: Start) -> Path:
    """The annealed densities of rows y (N, D), in coordinates that suit the model's latents."""
    return (Path if vae.card.hierarchy is None else PathOfNoise)(vae, y, start)


class Path:
    """The annealed densities of rows y (N, D), over positions which are the latents.

    Attributes:
        q: q(z|y).
        start: The density at beta = 0: q, or the normal distribution with the prior's means and variances, which is the prior
            itself where that is normal.
    """

    def __init__(self, vae: LatentModel, y: Tensor, start: Start) -> None:
        self.q: Posterior = vae.inference(y)
        self.prior: Prior = vae.prior()
        self.start: Posterior = self.q if start == "posterior" else self._normal_prior()
        self._log_likelihood = paired(vae.generative, y)

    def _normal_prior(self) -> Posterior:
        return DiagonalNormal(self.prior.mean.expand_as(self.q.mean), self.prior.stddev.expand_as(self.q.stddev))

    def position(self, z: Tensor) -> Tensor:
        """Of latents z (C, N, K)."""
        return z

    def latents(self, position: Tensor) -> Tensor:
        """At positions (C, N, K)."""
        return position

    def at(self, z: Tensor) -> Point:
        """Densities and gradients at latents z (C, N, K)."""
        log_likelihood, gradient = self._likelihood(z)
        log_joint, joint_gradient = log_likelihood + self.prior.log_prob(z), gradient + self.prior.score(z)
        return Point(z, self.start.log_prob(z), log_joint, self.start.score(z), joint_gradient)

    def gradient(self, z: Tensor, beta: float) -> Tensor:
        """Of the annealed log density at latents z (C, N, K)."""
        _, gradient = self._likelihood(z)
        return (1 - beta) * self.start.score(z) + beta * (gradient + self.prior.score(z))

    def _likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_likelihood = self._log_likelihood(z)
            (gradient,) = torch.autograd.grad(log_likelihood, z, torch.ones_like(log_likelihood))
        return log_likelihood.detach(), gradient

    @property
    def centre(self) -> Tensor:
        """The position of the mean of q(z|y), (N, K)."""
        return self.q.mean

    @property
    def whitening(self) -> tuple[Tensor, Tensor]:
        """The mean (N, K) of the start's positions, and a root L (N, K, K) of their covariance L L'."""
        root = self.start.scale_tril if isinstance(self.start, FullNormal) else self.start.stddev.diag_embed()
        return self.start.mean, root

    @cached_property
    def frame(self) -> Frame:
        """The posteriors' shapes."""
        return frame_of(self)


class PathOfNoise(Path):
    """The same of a hierarchy of latents, over positions which are the noise that the start makes latents of.

    One layer may all but determine the next, so that latents can move only together; of the noise the start's density is a
    standard normal one, whatever its layers do (Hoffman et al. 2019, "NeuTra-lizing bad geometry in Hamiltonian Monte Carlo").
    """

    start: Chain

    @override
    def _normal_prior(self) -> Posterior:
        """The prior itself, with a normal top layer of the same mean and variance."""
        assert isinstance(self.prior, Chain)
        return self.prior.with_normal_first()

    @override
    def position(self, z: Tensor) -> Tensor:
        return self.start.to_noise(z)

    @override
    def latents(self, position: Tensor) -> Tensor:
        return self.start.transform(position)

    @override
    def at(self, z: Tensor) -> Point:
        """Densities and gradients at positions z (C, N, K); log p(y, z) has the noise's log |d latents / d noise| added."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            latents, log_start = self.start.transform(z), normal_log_prob(z)
            log_ratio = self._log_likelihood(latents) + self.prior.log_prob(latents) - self.start.log_prob(latents)
            log_joint = log_start + log_ratio
            (gradient,) = torch.autograd.grad(log_joint, z, torch.ones_like(log_joint))
        return Point(z.detach(), log_start.detach(), log_joint.detach(), -z.detach(), gradient)

    @override
    def gradient(self, z: Tensor, beta: float) -> Tensor:
        return self.at(z).gradient(beta)

    @property
    @override
    def centre(self) -> Tensor:
        return self.start.to_noise(self.q.mean)

    @property
    @override
    def whitening(self) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self.q.mean), torch.ones_like(self.q.mean).diag_embed()


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
