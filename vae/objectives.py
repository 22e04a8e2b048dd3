"""What training minimises, and the lecture's three terms that it is made of.

ELBO(y) = E_q[log p(y|z)] - E_q[log q(z|y)] + E_q[log p(z)], each term by S samples z_s ~ q(z|y) (lecture #21; the log of
the third term, lost there, is restored).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.distributions import kl_divergence

if TYPE_CHECKING:
    from vae.model import VAE

KL = Literal["monte_carlo", "closed_form"]


class Terms:
    """The terms of the ELBO for rows y of shape (N, D), from S shared draws z_s ~ q(z|y). All are (N,), in nats.

    Attributes:
        q: q(z|y), batch shape (N,), event shape (K,).
        prior: p(z).
        z: The draws, shape (S, N, K).
    """

    def __init__(self, vae: VAE, y: Tensor, S: int, generator: torch.Generator | None = None) -> None:
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


@dataclass(frozen=True)
class Objective:
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


class ELBO:
    """The negative evidence lower bound.

    Args:
        samples: Monte Carlo samples S per example.
        kl: ``"monte_carlo"`` for the lecture's three sampled terms, ``"closed_form"`` for the exact KL to the prior.

    Raises:
        ValueError: If ``samples`` is below 1 or ``kl`` is unknown.
    """

    def __init__(self, samples: int = 1, kl: KL = "monte_carlo") -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1; got {samples}")
        if kl not in get_args(KL):
            raise ValueError(f"kl must be one of {', '.join(get_args(KL))}; got {kl!r}")
        self.samples = samples
        self.kl = kl

    def __call__(self, vae: VAE, y: Tensor, generator: torch.Generator | None = None) -> Objective:
        """Evaluate on rows ``y`` of shape (N, D), with noise from ``generator``."""
        terms = Terms(vae, y, self.samples, generator)
        reconstruction, kl = terms.log_likelihood, getattr(terms, self.kl)
        elbo = reconstruction - kl
        return Objective(-elbo, elbo, reconstruction, kl)
