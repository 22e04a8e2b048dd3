"""log p(y) without sampling, where that is possible: linear-Gaussian models, and one or two latent dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from vae.distributions.latent import NormalMixture
from vae.distributions.vectors import DiagonalNormal
from vae.evidence.estimate import Advance, ignore
from vae.evidence.integration import quadrature
from vae.likelihoods import Gaussian, LearnedGaussian

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel


@dataclass(frozen=True)
class Exact:
    """log p(y) per example.

    Attributes:
        log_likelihood: Values in nats, shape (N,), float64; NaN where quadrature has no value.
        method: ``"closed form"`` or ``"quadrature"``.
        crowded: Whether that is for too many cells, (N,).
    """

    log_likelihood: Tensor
    method: str
    crowded: Tensor

    @property
    def reason(self) -> str:
        """Why values are missing; empty if none is."""
        N, crowded = len(self.crowded), int(self.crowded.sum())
        rest = int(self.log_likelihood.isnan().sum()) - crowded
        reasons = {
            f"p(y, z) has details in more than {quadrature.CELLS:,} cells": crowded,
            f"two sums over the smallest cells still differed by more than {quadrature.TOLERANCE:g}": rest,
        }
        return "; ".join(f"for {count} of {N} rows {reason}" for reason, count in reasons.items() if count)


def exact_applies(vae: LatentModel) -> bool:
    """Whether `exact` has an answer for this model: not if a part of it is another than its card says."""
    if not vae.prior.smooth or not (_is_linear_gaussian(vae) or vae.card.latent_size in quadrature.DIMENSIONS):
        return False
    built = type(vae)(**vae.card.arguments())  # quadrature looks at the hidden units of networks that it knows
    return [type(part) for part in built.modules()] == [type(part) for part in vae.modules()]


@torch.no_grad()
def exact(vae: LatentModel, y: Tensor, *, advance: Advance = ignore) -> Exact:
    """log p(y), computed in float64.

    A model without hidden layers in the generative network and with a Gaussian likelihood is probabilistic PCA: y is normal
    with mean b and covariance W W' + diag(variance) (Tipping and Bishop 1999, eq. 4). With one or two latent dimensions the
    integral of p(y|z) p(z) is a sum over cells, divided until two sums agree to 1e-8 (see `quadrature`), or there is no value.
    With a mixture of normal distributions as prior, PCA's density is a mixture too.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        advance: Called with the number of rows done.

    Raises:
        ValueError: If neither applies, or a value of y is not finite.
    """
    y = vae.as_rows(y)
    if not exact_applies(vae):
        hidden = list(vae.card.generative.hidden)
        raise ValueError(
            "an exact log-likelihood needs latent_dim 1 or 2, or [1, 1], or a Gaussian likelihood, a generative network "
            "without hidden layers and no hierarchy; and a prior that is normal or a mixture; got "
            f"prior {vae.card.prior['name']!r}, latent_dim {vae.card.latent_dim}, "
            f"{vae.card.likelihood['name']!r} and hidden {hidden}"
        )
    double = vae
    if vae.dtype != torch.float64:
        double = type(vae)(**vae.card.arguments()).double().to(vae.device)
        double.load_state_dict(vae.state_dict())
    if _is_linear_gaussian(vae):
        advance(len(y))
        return Exact(
            _linear_gaussian(double, y.double()), "closed form", torch.zeros(len(y), dtype=torch.bool, device=y.device)
        )
    sums = quadrature.quadrature(double, y.double(), advance=advance)
    return Exact(sums.log_likelihood, "quadrature", sums.crowded)


def join(parts: Sequence[Exact]) -> Exact:
    """Of all rows, from those of consecutive chunks of them."""
    values, crowded = zip(*((part.log_likelihood, part.crowded) for part in parts), strict=True)
    return Exact(torch.cat(values), parts[0].method, torch.cat(crowded))


def _is_linear_gaussian(vae: LatentModel) -> bool:
    card = vae.card.generative
    affine = not card.hidden and not card.channels and vae.card.hierarchy is None
    return affine and isinstance(vae.generative.likelihood, Gaussian | LearnedGaussian)


def _linear_gaussian(vae: LatentModel, y: Tensor) -> Tensor:
    """log p(y) per row: each normal component of the prior makes one of y."""
    layer, likelihood, prior = vae.generative.network[0], vae.generative.likelihood, vae.prior()
    assert isinstance(layer, nn.Linear)
    assert isinstance(likelihood, Gaussian | LearnedGaussian)
    if isinstance(prior, DiagonalNormal):
        prior = NormalMixture(prior.mean.new_zeros(1), prior.mean[None], prior.stddev[None])
    variance = likelihood.variance.expand(len(layer.bias))
    parts = [
        log_weight + LowRankMultivariateNormal(layer(mean), layer.weight * stddev, variance).log_prob(y)
        for log_weight, mean, stddev in zip(prior.log_weights, prior.means, prior.stddevs, strict=True)
    ]
    return torch.stack(parts).logsumexp(dim=0)
