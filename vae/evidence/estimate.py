"""What an estimator returns, and the running log-mean-exp that they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vae.model import VAE


@dataclass(frozen=True)
class Estimate:
    """log p(y) per example.

    Attributes:
        log_likelihood: Estimates in nats, shape (N,), float64.
        effective_sample_size: (sum w)^2 / sum w^2 of the S weights of each example, shape (N,); between 1 and S.
        samples: S.
    """

    log_likelihood: Tensor
    effective_sample_size: Tensor
    samples: int


class LogWeights:
    """Accumulates log weights of N examples block by block, in float64, without keeping them."""

    def __init__(self, N: int, device: torch.device) -> None:
        self._sum = torch.full((N,), -math.inf, dtype=torch.float64, device=device)
        self._sum_of_squares = self._sum.clone()

    def add(self, log_weights: Tensor, rows: slice = slice(None)) -> None:
        """Add log weights of shape (S', rows) for the examples ``rows``."""
        log_weights = log_weights.double()
        self._sum[rows] = torch.logaddexp(self._sum[rows], log_weights.logsumexp(dim=0))
        squares = (2 * log_weights).logsumexp(dim=0)
        self._sum_of_squares[rows] = torch.logaddexp(self._sum_of_squares[rows], squares)

    def estimate(self, S: int) -> Estimate:
        """Log (1/S) sum of weights, with the effective sample size."""
        ess = (2 * self._sum - self._sum_of_squares).exp()
        return Estimate(self._sum - math.log(S), ess, S)


def require_samples(S: int) -> None:
    """Refuse fewer than one sample."""
    if S < 1:
        raise ValueError(f"samples must be at least 1; got {S}")


def rows_per_chunk(vae: VAE, draws: int, budget: int = 2**21) -> int:
    """How many rows, each with that many draws, keep the widest layer within the budget (8 MiB in float32)."""
    card = vae.card
    widest = max(card.data_dim, card.latent_dim, *card.generative.hidden, *card.inference.hidden)
    return max(1, budget // (draws * widest))


def example_ids(ids: Tensor | None, N: int) -> Tensor:
    """``ids``, or positions.

    Raises:
        ValueError: If there is not one id for each of the N rows.
    """
    if ids is None:
        return torch.arange(N)
    if ids.shape != (N,):
        raise ValueError(f"ids must have shape ({N},), one for each row; got {tuple(ids.shape)}")
    return ids
