"""The shape of a row's posterior: axes along which it is about independent, and how narrow it is along each.

Found from gradients at the mean of q(z|y), and so a function of y alone, as what steers chains must be. The variances of q
would be another guess, which a bad encoder spoils, and which knows of no correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vae.evidence.annealing.hmc import Path

FARTHEST = 1e3  # standard deviations of the start, that a mode is believed to be away


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
        """Of positions, (C, N, K), by standard normal momentum (C, N, K)."""
        return torch.einsum("nij,cnj->cni", self.axes, momentum * self._scale(beta))

    def force(self, gradient: Tensor, beta: float) -> Tensor:
        """On such momentum, (C, N, K), by the gradient (C, N, K) of a log density at positions."""
        return torch.einsum("nij,cni->cnj", self.axes, gradient).mul_(self._scale(beta))

    def _scale(self, beta: float) -> Tensor:
        return (1 - beta + beta * self.precision).rsqrt()


def frame_of(path: Path) -> Frame:
    """Of a path's rows, by the Hessian of log p(y, z) at the mean of q, in coordinates in which the start is standard normal.

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
    """Of log p(y, z) by coordinates along the root's columns, (N, K, K), from gradients a standard deviation of q apart."""
    steps, columns = path.q.stddev / path.start.stddev, list[Tensor]()
    for k in range(root.shape[2]):
        step = (root[:, :, k] * steps[:, k, None]).to(path.centre)
        after, before = path.at(torch.stack([path.centre + step, path.centre - step])).joint_gradient.double()
        columns.append(torch.einsum("nij,ni->nj", root, after - before) / (2 * steps[:, k, None]))
    hessian = torch.stack(columns, dim=-1)
    finite = hessian.isfinite().all(dim=(1, 2))
    hessian[~finite] = -steps[~finite].double().square().reciprocal().diag_embed()
    return (hessian + hessian.mT) / 2
