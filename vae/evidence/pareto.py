"""Pareto k: how heavy the upper tail of importance weights is.

A generalised Pareto distribution is fitted to the weights above a cutoff; below k = 1/2 the weights have a variance, below 1 a
mean (Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling, JMLR 2024). ArviZ fits one example at a
time and needs all its weights; this fits all examples at once from the kept tails, and the tests compare the two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_SAMPLES = 100
EQUAL = 64  # rounding errors: weights that differ by less than so many units in the last place of float32 are called equal


def tail_length(S: int) -> int:
    """How many of S weights make the tail: min(S / 5, 3 sqrt S), rounded up (ArviZ's psislw, R's loo); none below 100."""
    return math.ceil(min(S / 5, 3 * math.sqrt(S))) if S >= LEAST_SAMPLES else 0


def pareto_k(tail: Tensor) -> Tensor:
    """The shape k per example, shape (N,), from the largest log weights (M + 1, N) in descending order.

    The smallest of them is the cutoff. Equal weights give 0 by definition; without a tail it is NaN.
    """
    if not len(tail):
        return torch.full(tail.shape[1:], math.nan, dtype=tail.dtype, device=tail.device)
    excess = tail - tail[:1]
    weights = (excess[:-1].exp() - excess[-1].exp()).flip(0)
    resolution = EQUAL * torch.finfo(torch.float32).eps * tail[0].abs().clamp_min(1)
    equal = -excess[-1] <= resolution
    return torch.where(equal, 0.0, _shape(weights.masked_fill(equal, 1.0)))


def _shape(x: Tensor) -> Tensor:
    """k of a generalised Pareto distribution fitted to (M, N) ascending excesses (Zhang and Stephens 2009).

    The profile likelihood is averaged over a grid of b = -k / sigma. As in the PSIS paper, k is drawn towards 1/2 as if by ten
    more excesses.
    """
    M = len(x)
    grid = 30 + int(math.sqrt(M))
    points = torch.arange(1, grid + 1, dtype=x.dtype, device=x.device) - 0.5
    b = (1 - (grid / points).sqrt())[:, None] / (3 * x[int(M / 4 + 0.5) - 1].clamp_min(torch.finfo(x.dtype).tiny)) + 1 / x[-1]
    k = torch.stack([torch.log1p(-row * x).mean(dim=0) for row in b])
    profile = M * ((-b / k).log() - k - 1)
    mean = (profile.softmax(dim=0) * b).sum(dim=0)
    k = torch.log1p(-mean * x).mean(dim=0)
    return (M * k + 10 * 0.5) / (M + 10)
