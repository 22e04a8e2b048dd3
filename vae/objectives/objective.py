"""What an objective makes of the terms of the ELBO."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from vae.model.terms import Terms
from vae.settings import Draws

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

DONE = math.inf  # epochs of training, after any schedule's end


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


class Objective(Draws, ABC):
    """What training minimises, by Monte Carlo.

    Args:
        samples: Monte Carlo samples S per example.

    Raises:
        OptionError: If an option is out of its range; the message names it.
    """

    @property
    def draws(self) -> int:
        """How many latents it draws for a row."""
        return self.samples

    def __call__(self, vae: LatentModel, y: Tensor, generator: torch.Generator | None = None, epoch: float = DONE) -> Values:
        """Evaluate on rows ``y`` of shape (N, D), with noise from ``generator``, after so many epochs of training."""
        return self.values(Terms(vae, y, self.draws, generator), epoch)

    @abstractmethod
    def values(self, terms: Terms, epoch: float = DONE) -> Values:
        """Evaluate on terms of `draws` draws, after so many epochs of training."""

    def check(self, vae: LatentModel) -> None:  # most are for all models
        """Refuse models that the objective is not for.

        Raises:
            OptionError: Naming what the model has, and the remedy.
        """

    def with_samples(self, S: int | None) -> Self:
        """The same objective with S samples; None changes nothing."""
        return self if S is None else replace(self, samples=S)
