"""What training minimises, and the lecture's three terms that it is made of.

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
from typing_extensions import override

if TYPE_CHECKING:
    from vae.latent_model import LatentModel

KL = Literal["monte_carlo", "closed_form"]
Schedule = Literal["constant", "linear", "cyclic"]
DONE = math.inf  # epochs of training, after any schedule's end


class Terms:
    """The terms of the ELBO for rows y of shape (N, D), from S shared draws z_s ~ q(z|y). All are (N,), in nats.

    Attributes:
        q: q(z|y), batch shape (N,), event shape (K,).
        prior: p(z).
        z: The draws, shape (S, N, K).
    """

    def __init__(self, vae: LatentModel, y: Tensor, S: int, generator: torch.Generator | None = None) -> None:
        self._vae, self._y = vae, y
        self.q = vae.inference(y)
        self.prior = vae.prior()
        self.z = self.q.rsample((S,), generator)

    @cached_property
    def log_likelihood(self) -> Tensor:
        """E_q[log p(y|z)], also called reconstruction."""
        return self._vae.generative(self.z).log_prob(self._y).mean(dim=0)

    @cached_property
    def log_posterior(self) -> Tensor:
        """E_q[log q(z|y)]."""
        return self.q.log_prob(self.z).mean(dim=0)

    @cached_property
    def log_prior(self) -> Tensor:
        """E_q[log p(z)]."""
        return self.prior.log_prob(self.z).mean(dim=0)

    @property
    def monte_carlo(self) -> Tensor:
        """KL(q(z|y) || p(z)) by the same draws."""
        return self.log_posterior - self.log_prior

    @property
    def closed_form(self) -> Tensor:
        """KL(q(z|y) || p(z)) exactly.

        Raises:
            NotImplementedError: If torch knows no closed form for this pair of distributions.
        """
        return kl_divergence(self.q, self.prior)

    def kl_columns(self, how: KL) -> Tensor:
        """The part of each latent dimension in the KL, (N, K), where q and the prior factorise over them."""
        if how == "closed_form":
            return kl_divergence(self.q.base_dist, self.prior.base_dist)
        return (self.q.log_prob_columns(self.z) - self.prior.log_prob_columns(self.z)).mean(dim=0)


@dataclass(frozen=True)
class Values:
    """What an objective returns, per example, each of shape (N,), in nats.

    Attributes:
        loss: What training minimises.
        elbo: The evidence lower bound, whatever the loss is.
        reconstruction: E_q[log p(y|z)].
        kl: E_q[log q(z|y) - log p(z)]; elbo = reconstruction - kl.
    """

    loss: Tensor
    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor


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
        _require(self.samples >= 1, "samples must be at least 1", self.samples)

    @abstractmethod
    def __call__(self, vae: LatentModel, y: Tensor, generator: torch.Generator | None = None, epoch: float = DONE) -> Values:
        """Evaluate on rows ``y`` of shape (N, D), with noise from ``generator``, after so many epochs of training."""

    def with_samples(self, S: int | None) -> Self:
        """The same with S samples; None changes nothing."""
        return self if S is None else replace(self, samples=S)


@dataclass(frozen=True)
class ELBO(Objective):
    """The negative evidence lower bound.

    Args:
        samples: Monte Carlo samples S per example.
        kl: ``"monte_carlo"`` for the lecture's three sampled terms, ``"closed_form"`` for the exact KL to the prior.
    """

    kl: KL = "monte_carlo"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one_of("kl", self.kl, KL)

    @override
    def __call__(self, vae: LatentModel, y: Tensor, generator: torch.Generator | None = None, epoch: float = DONE) -> Values:
        terms = Terms(vae, y, self.samples, generator)
        reconstruction, kl = terms.log_likelihood, getattr(terms, self.kl)
        return Values(self._loss(terms, epoch), reconstruction - kl, reconstruction, kl)

    def _loss(self, terms: Terms, epoch: float) -> Tensor:
        return getattr(terms, self.kl) - terms.log_likelihood


@dataclass(frozen=True)
class BetaELBO(ELBO):
    """beta-VAE: KL * beta - reconstruction (Higgins et al. 2017), with beta rising from 0 if there is a schedule.

    beta > 1 gives latents closer to the prior and worse reconstructions; only beta = 1 is a bound of log p(y).

    Args:
        samples: Monte Carlo samples S per example.
        kl: As in `ELBO`.
        beta: Weight of the KL, once it has risen.
        schedule: ``"constant"``; ``"linear"``, rising for ``epochs`` epochs (Bowman et al. 2016); or ``"cyclic"``, in every
            ``epochs`` epochs rising for the first half and staying for the second (Fu et al. 2019).
        epochs: Of the schedule.
    """

    beta: float = 1.0
    schedule: Schedule = "constant"
    epochs: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.beta >= 0, "beta must be at least 0", self.beta)
        _require(self.epochs > 0, "epochs must be greater than 0", self.epochs)
        _require_one_of("schedule", self.schedule, Schedule)

    def weight(self, epoch: float) -> float:
        """beta after so many epochs, of which the current one may be a fraction."""
        if self.schedule == "constant" or epoch == DONE:
            return self.beta
        if self.schedule == "linear":
            return self.beta * min(1.0, epoch / self.epochs)
        return self.beta * min(1.0, 2 * (epoch % self.epochs) / self.epochs)

    @override
    def _loss(self, terms: Terms, epoch: float) -> Tensor:
        return self.weight(epoch) * getattr(terms, self.kl) - terms.log_likelihood


@dataclass(frozen=True)
class FreeBits(ELBO):
    """The KL of each group of latent dimensions counts from ``nats`` on (Kingma et al. 2016, "IAF", eq. 15).

    The loss is sum_g max(nats, mean_n KL_g(y_n)) - reconstruction, with the mean over the batch, or a process's share of it.
    Below ``nats`` a group is free, so that training does not begin by switching latents off.

    Args:
        samples: Monte Carlo samples S per example.
        kl: As in `ELBO`.
        nats: That each group has for free.
        group: Latent dimensions in a group, neighbours; the last group may be smaller.
    """

    nats: float = 0.1
    group: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.nats >= 0, "nats must be at least 0", self.nats)
        _require(self.group >= 1, "group must be at least 1", self.group)

    @override
    def _loss(self, terms: Terms, epoch: float) -> Tensor:
        groups = terms.kl_columns(self.kl).mean(dim=0).split(self.group)
        return sum(part.sum().clamp(min=self.nats) for part in groups) - terms.log_likelihood


@dataclass(frozen=True)
class StickingTheLanding(Objective):
    """The negative ELBO, its gradient without the score of q (Roeder, Wu and Duvenaud 2017).

    E_q[grad_v log q_v(z|y)] = 0, so leaving it out changes no expectation, and the nearer q is to the posterior, the less
    variance is left of the inference network's gradient: none where they are equal. The KL is that of the same draws. Right
    for the ELBO only, not for importance-weighted bounds.

    Args:
        samples: Monte Carlo samples S per example.
    """

    @override
    def __call__(self, vae: LatentModel, y: Tensor, generator: torch.Generator | None = None, epoch: float = DONE) -> Values:
        terms = Terms(vae, y, self.samples, generator)
        reconstruction, kl = terms.log_likelihood, terms.monte_carlo
        log_posterior = terms.q.detach().log_prob(terms.z).mean(dim=0)
        return Values(log_posterior - terms.log_prior - reconstruction, reconstruction - kl, reconstruction, kl)


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {value!r}")


def _require_one_of(name: str, value: object, names: object) -> None:
    _require(value in get_args(names), f"{name} must be one of {', '.join(get_args(names))}", value)
