"""The lecture's three terms.

ELBO(y) = E_q[log p(y|z)] - E_q[log q(z|y)] + E_q[log p(z)], each term by S samples z_s ~ q(z|y) (lecture #21; the log of
the third term, lost there, is restored).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vae.options.registry import KL

if TYPE_CHECKING:
    from vae.model.conditionals import Generative, Inference


class Networks(Protocol):
    """The parts of a model that its terms are made of."""

    inference: Inference
    generative: Generative

    def prior(self) -> Any:
        """p(z)."""


class Terms:
    """The terms of the ELBO for rows y of shape (N, D), from S shared draws z_s ~ q(z|y). All are in nats.

    Args:
        vae, y, S: The model, rows and number of draws.
        generator: Of the draws' noise.

    Attributes:
        prior: p(z).
        q: q(z|y), batch shape (N,), event shape (K,).
        z: The draws, shape (S, N, K).
        log_likelihood_of_draws: log p(y|z_s), (S, N).
    """

    def __init__(self, vae: Networks, y: Tensor, S: int, generator: torch.Generator | None = None) -> None:
        self.prior = vae.prior()
        self.q = vae.inference(y)
        self.z = self.q.rsample((S,), generator)
        self.log_likelihood_of_draws = vae.generative(self.z).log_prob(y)

    @cached_property
    def log_posterior_of_draws(self) -> Tensor:
        """log q(z_s|y), (S, N)."""
        return self.q.log_prob(self.z)

    @cached_property
    def log_prior_of_draws(self) -> Tensor:
        """log p(z_s), (S, N)."""
        return self.prior.log_prob(self.z)

    @cached_property
    def log_likelihood(self) -> Tensor:
        """E_q[log p(y|z)], also called reconstruction, (N,)."""
        return mean(self.log_likelihood_of_draws)

    @cached_property
    def log_posterior(self) -> Tensor:
        """E_q[log q(z|y)], (N,)."""
        return mean(self.log_posterior_of_draws)

    @cached_property
    def log_prior(self) -> Tensor:
        """E_q[log p(z)], (N,)."""
        return mean(self.log_prior_of_draws)

    @cached_property
    def monte_carlo(self) -> Tensor:
        """KL(q(z|y) || p(z)) by the same draws, (N,)."""
        return self.log_posterior - self.log_prior

    @cached_property
    def closed_form(self) -> Tensor:
        """KL(q(z|y) || p(z)) exactly, (N,).

        Raises:
            NotImplementedError: If there is no closed form for this pair of distributions.
        """
        return kl_divergence(self.q, self.prior)

    def kl_columns(self, how: KL) -> Tensor:
        """The part of each latent dimension in the KL, (N, K), where q and the prior factorise over them."""
        if how == "closed_form":
            return kl_divergence(self.q.base_dist, self.prior.base_dist)
        return (self.q.log_prob_columns(self.z) - self.prior.log_prob_columns(self.z)).mean(dim=0)


def mean(draws: Tensor) -> Tensor:
    """The mean over draws (S, N), shape (N,)."""
    return draws.squeeze(0) if len(draws) == 1 else draws.mean(dim=0)
