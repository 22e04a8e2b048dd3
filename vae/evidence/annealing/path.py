"""The annealed densities of rows, and the shapes of their posteriors.

A posterior's shape, axes along which it is about independent, and how narrow it is along each, is found from gradients at the
mean of q(z|y), and so a function of y alone, as what steers chains must be. The variances of q would be another guess, which a
bad encoder spoils, and which knows of no correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae.distributions.chains import Chain
from vae.distributions.latent import FullNormal, LatentDistribution, normal_log_prob
from vae.distributions.vectors import DiagonalNormal
from vae.evidence.density import paired
from vae.model.conditionals import Posterior

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

Start = Literal["posterior", "prior"]
Prior = DiagonalNormal | LatentDistribution
FARTHEST = 1e3  # standard deviations of the start, that a mode is believed to be away


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
        """The gradient of `log_density`, (C, N, K)."""
        return (1 - beta) * self.start_gradient + beta * self.joint_gradient

    @property
    def log_ratio(self) -> Tensor:
        """log p(y, z) - log pi_0(z), (C, N): the derivative of `log_density` by beta."""
        return self.log_joint - self.log_start


def path_of(vae: LatentModel, y: Tensor, start: Start, widen: float = 1.0) -> Path:
    """The annealed densities of rows y (N, D), in coordinates that suit the model's latents."""
    return (Path if vae.card.hierarchy is None else PathOfNoise)(vae, y, start, widen)


class Path:
    """The annealed densities of rows y (N, D), over positions which are the latents.

    Attributes:
        q: q(z|y).
        start: The density at beta = 0: q, or the normal distribution with the prior's means and variances, which is the prior
            itself where that is normal and not widened.
    """

    def __init__(self, vae: LatentModel, y: Tensor, start: Start, widen: float = 1.0) -> None:
        self.q: Posterior = vae.inference(y)
        self.prior: Prior = vae.prior()
        self.start: Posterior = self.q if start == "posterior" else self._normal_prior(widen)
        self._log_likelihood = paired(vae.generative, y)

    def _normal_prior(self, widen: float) -> Posterior:
        return DiagonalNormal(self.prior.mean.expand_as(self.q.mean), widen * self.prior.stddev.expand_as(self.q.stddev))

    def position(self, z: Tensor) -> Tensor:
        """The position of latents z (C, N, K)."""
        return z

    def latents(self, position: Tensor) -> Tensor:
        """The latents at positions (C, N, K)."""
        return position

    def at(self, z: Tensor) -> Point:
        """Densities and gradients at latents z (C, N, K)."""
        log_likelihood, gradient = self._likelihood(z)
        log_joint, joint_gradient = log_likelihood + self.prior.log_prob(z), gradient + self.prior.score(z)
        return Point(z, self.start.log_prob(z), log_joint, self.start.score(z), joint_gradient)

    def gradient(self, z: Tensor, beta: float) -> Tensor:
        """The gradient of the annealed log density at latents z (C, N, K)."""
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
    """The annealed densities of a hierarchy of latents, over positions which are the noise that the start makes latents of.

    One layer may all but determine the next, so that latents can move only together; of the noise the start's density is a
    standard normal one, whatever its layers do (Hoffman et al. 2019, "NeuTra-lizing bad geometry in Hamiltonian Monte Carlo").
    """

    start: Chain

    @override
    def _normal_prior(self, widen: float) -> Posterior:
        """The prior itself, with a normal top layer of the same mean, as wide or wider."""
        assert isinstance(self.prior, Chain)
        return self.prior.with_normal_first(widen)

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
class Frame:
    """Axes in which the start is about a standard normal density, and the posterior one with a diagonal covariance.

    Attributes:
        axes: A, (N, K, K): its columns are directions of positions.
        precision: Of the posterior along each, d, (N, K): at beta a density's precision is A^-T diag(1 - beta + beta d) A^-1.
        mode: Of the posterior along each, from the start's mean, (N, K): where a Newton step from the mean of q leads.
    """

    axes: Tensor
    precision: Tensor
    mode: Tensor

    def displacement(self, momentum: Tensor, beta: float) -> Tensor:
        """How positions move by standard normal momentum (C, N, K)."""
        return torch.einsum("nij,cnj->cni", self.axes, momentum * self._scale(beta))

    def force(self, gradient: Tensor, beta: float) -> Tensor:
        """How such momentum changes by the gradient (C, N, K) of a log density at positions."""
        return torch.einsum("nij,cni->cnj", self.axes, gradient).mul_(self._scale(beta))

    def _scale(self, beta: float) -> Tensor:
        return (1 - beta + beta * self.precision).rsqrt()


def frame_of(path: Path) -> Frame:
    """The frame of a path's rows: by the Hessian of log p(y, z) at the mean of q, where the start is standard normal.

    Of the Hessian's eigenvalues the size counts (Betancourt 2013, "A general metric for Riemannian manifold Hamiltonian Monte
    Carlo"), and no less than the prior's precision. Where a gradient is not finite, the variances of q take its place.
    """
    origin, root = (part.double() for part in path.whitening)
    values, vectors = torch.linalg.eigh(_hessian(path, root))
    of_prior = (path.start.stddev / path.prior.stddev).double().square().expand_as(values)
    precision = torch.maximum(-values, torch.einsum("nij,ni->nj", vectors.square(), of_prior)).maximum(values)
    axes = root @ vectors
    gradient = path.at(path.centre[None]).joint_gradient[0].double()
    mode = torch.linalg.solve(axes, (path.centre - origin)[..., None])[..., 0]
    mode += torch.einsum("nij,ni->nj", axes, gradient) / precision
    parts = (axes, precision, mode.nan_to_num(0.0).clamp(-FARTHEST, FARTHEST))
    return Frame(*(part.to(path.q.mean) for part in parts))


def _hessian(path: Path, root: Tensor) -> Tensor:
    """The Hessian of log p(y, z) along the root's columns, (N, K, K), from gradients a standard deviation of q apart."""
    steps, columns = path.q.stddev / path.start.stddev, list[Tensor]()
    for k in range(root.shape[2]):
        step = (root[:, :, k] * steps[:, k, None]).to(path.centre)
        after, before = path.at(torch.stack([path.centre + step, path.centre - step])).joint_gradient.double()
        columns.append(torch.einsum("nij,ni->nj", root, after - before) / (2 * steps[:, k, None]))
    hessian = torch.stack(columns, dim=-1)
    finite = hessian.isfinite().all(dim=(1, 2))
    hessian[~finite] = -steps[~finite].double().square().reciprocal().diag_embed()
    return (hessian + hessian.mT) / 2
