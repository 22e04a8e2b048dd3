"""Zeros and ones in columns, whose log probability is computed in slices that a core's cache holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Bernoulli, Distribution
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from typing_extensions import override

from vae.distributions.vectors import Shape

SLICE = 2**17  # numbers, 512 KiB of float32


class BernoulliLogits(torch.autograd.Function):
    """Sum over D of y f - log(1 + e^f), the log probability of y in {0, 1} under logits f, and its gradient y - sigmoid(f).

    As (y - 1) f + log sigmoid(f), in slices that stay in a core's cache where there are many draws: torch's
    `binary_cross_entropy_with_logits` goes four times through arrays of all of them.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor) -> Tensor:
        """Logits (S, ..., D) and values (..., D) -> (S, ...)."""
        ctx.save_for_backward(logits, y)
        factor = y - 1
        return torch.cat([bernoulli_log_prob(draws, factor) for draws in slices(logits, y)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient by the logits."""
        logits, y = ctx.saved_tensors
        by_logits = torch.empty_like(logits)
        every = zip(*(slices(draws, y) for draws in (logits, by_logits, gradient[..., None])), strict=True)
        for part, out, factor in every:
            torch.sub(y, torch.sigmoid(part, out=out), out=out).mul_(factor)
        return by_logits, None


def bernoulli_log_prob(logits: Tensor, factor: Tensor) -> Tensor:
    """Sum over D of (y - 1) f + log sigmoid(f), from logits f (..., D) and the factor y - 1."""
    return torch.linalg.vecdot(factor, logits) + logsigmoid(logits).sum(dim=-1)


def slices(draws: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """So many draws (S, ...) at a time that their logits stay in a core's cache."""
    count = max(1, SLICE // y.numel())
    return (draws,) if count >= len(draws) else draws.split(count)


class IndependentBernoulli(Distribution):
    """A product of Bernoulli distributions over the last dimension, from logits of shape (..., D)."""

    arg_constraints = {}  # noqa: RUF012  # as torch declares it

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        """The mean of each column, shape (..., D)."""
        return self.logits.sigmoid()

    @property
    @override
    def variance(self) -> Tensor:
        """The variance of each column, shape (..., D)."""
        return self.logits.sigmoid() * (-self.logits).sigmoid()

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats, shape (...): the sum over D."""
        if self.logits.shape[1:] == value.shape and self.logits.numel() > max(SLICE, value.numel()):  # many draws
            log_probability: Tensor = BernoulliLogits.apply(self.logits, value)
            return log_probability
        logits, value = torch.broadcast_tensors(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none").sum(dim=-1)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log probability of each column in nats, shape (..., D)."""
        return Bernoulli(logits=self.logits, validate_args=False).log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws in {0, 1}, shape ``sample_shape + (..., D)``."""
        probabilities = self.mean.expand(self._extended_shape(Size(sample_shape)))
        return torch.bernoulli(probabilities, generator=generator)
