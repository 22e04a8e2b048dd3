"""The lecture's three terms, and what an objective makes of them.

ELBO(y) = E_q[log p(y|z)] - E_q[log q(z|y)] + E_q[log p(z)], each term by S samples z_s ~ q(z|y) (lecture #21; the log of
the third term, lost there, is restored).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self, get_args

import torch
from torch import Tensor
from torch.distributions import kl_divergence

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

KL = Literal["monte_carlo", "closed_form"]
DONE = math.inf  # epochs of training, after any schedule's end


class Terms:
    """The terms of the ELBO for rows y of shape (N, D), from S shared draws z_s ~ q(z|y). All are in nats.

    Args:
        vae, y, S: The model, rows and number of draws.
        generator: Of the draws.
        gradient: Where that of the KL is to come from, which lets a step of the training compute q(z|y), the draws and this
            as one operation: no gradient passes then through ``q`` itself. None lets it pass everywhere.

    Attributes:
        q: q(z|y), batch shape (N,), event shape (K,).
        prior: p(z).
        z: The draws, shape (S, N, K).
    """

    def __init__(
        self, vae: LatentModel, y: Tensor, S: int, generator: torch.Generator | None = None, gradient: KL | None = None
    ) -> None:
        self._vae, self._y, self.prior = vae, y, vae.prior()
        draw = vae.inference.fused_draw(gradient, self.prior) if gradient and torch.is_grad_enabled() else None
        if draw is None:
            self.q = vae.inference(y)
            self.z = self.q.rsample((S,), generator)
        else:
            self.q, self.z, part = draw(y, S, generator)
            self.__dict__["closed_form" if gradient == "closed_form" else "log_posterior_of_draws"] = part

    @cached_property
    def log_likelihood_of_draws(self) -> Tensor:
        """log p(y|z_s), (S, N)."""
        return self._vae.generative.log_prob(self.z, self._y)

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
    """Over draws (S, N), shape (N,)."""
    return draws.squeeze(0) if len(draws) == 1 else draws.mean(dim=0)


@dataclass(frozen=True)
class Values:
    """What an objective returns, per example, each of shape (N,), in nats.

    Attributes:
        loss: What training minimises.
        reconstruction: E_q[log p(y|z)].
        kl: E_q[log q(z|y) - log p(z)].
        tighter: An importance-weighted bound of log p(y), where there is one.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    tighter: Tensor | None = None

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound, whatever the loss is."""
        return self.reconstruction - self.kl

    @property
    def bound(self) -> Tensor:
        """The lower bound of log p(y) by which epochs are compared: the ELBO, or an importance-weighted bound."""
        return self.elbo if self.tighter is None else self.tighter


@dataclass(frozen=True)
class Objective(ABC):
    """What training minimises, by Monte Carlo.

    Args:
        samples: Monte Carlo samples S per example.

    Raises:
        ValueError: If an option is out of its range; the message names it.
    """

    samples: int = 1

    def __post_init__(self) -> None:
        require(self.samples >= 1, "samples must be at least 1", self.samples)

    @property
    def draws(self) -> int:
        """Latents that it draws for a row."""
        return self.samples

    @abstractmethod
    def __call__(self, vae: LatentModel, y: Tensor, generator: torch.Generator | None = None, epoch: float = DONE) -> Values:
        """Evaluate on rows ``y`` of shape (N, D), with noise from ``generator``, after so many epochs of training."""

    def check(self, vae: LatentModel) -> None:  # noqa: B027  # most are for all models
        """Refuse models that it is not for.

        Raises:
            ValueError: Naming what the model has, and the remedy.
        """

    def with_samples(self, S: int | None) -> Self:
        """The same with S samples; None changes nothing."""
        return self if S is None else replace(self, samples=S)


def require(holds: bool, rule: str, value: object) -> None:
    """Refuse an option that breaks a rule."""
    if not holds:
        raise ValueError(f"{rule}; got {value!r}")


def require_one_of(name: str, value: object, names: object) -> None:
    """Refuse an option that is none of the names of a ``Literal``."""
    require(value in get_args(names), f"{name} must be one of {', '.join(get_args(names))}", value)
