"""Means over examples that come in groups, such as the rows of a patient: groups are independent, not examples.

A mean is off by the sum of contributions u_i, such as (x_i - mean) / N. Whatever the dependence within groups, its variance is

    V = G / (G - 1) sum_g (sum_{i in g} u_i)^2

(Liang and Zeger 1986; Cameron and Miller 2015, equation 11), which is s^2 / N where each example is a group. Intervals by
Student's t with G - 1 degrees of freedom hold what they promise from about 30 groups of similar sizes on. Where sizes differ V
varies as if there were fewer groups, G* (Carter, Schnepel and Steigerwald 2017, equation 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

ENOUGH_GROUPS = 30  # effective ones, from which on a 95 % interval covers the truth in 93 % of cases or more


def totals(contributions: Tensor, groups: Tensor) -> Tensor:
    """Sums of values (N,) over the groups, integers (N,), that there are: (G,)."""
    labels, place = groups.to(contributions.device).unique(return_inverse=True)
    return contributions.new_zeros(len(labels)).index_add_(0, place, contributions)


def covariance(a: Tensor, b: Tensor) -> float:
    """G / (G - 1) sum_g a_g b_g of totals (G,) of contributions that add up to 0; NaN for a single group."""
    G = len(a)
    return (a * b).sum().item() * G / (G - 1) if G > 1 else math.nan


def effective_groups(groups: Tensor) -> float:
    """G* = (sum_g n_g^2)^2 / sum_g n_g^4, at most G: of G groups of sizes n_g, whose examples are taken to be alike.

    The variance of a group's total is then n_g^2, which is the worst case: where examples of a group differ, less depends on
    the largest groups.
    """
    squares = groups.unique(return_counts=True)[1].double().square()
    return (squares.sum().square() / squares.square().sum()).item()


def combined(variances: Sequence[float], numbers: Sequence[float], *, independent: bool = True) -> float:
    """Degrees of freedom, or groups, n of a sum of variances V that are each estimated from so many.

    Independent: (sum V)^2 / sum (V^2 / n) (Satterthwaite 1946). Otherwise (sum V)^2 / (sum V / sqrt n)^2, as if all were too
    large or too small together.
    """
    if not min(numbers) > 0 or not math.fsum(variances) > 0:
        return min(numbers)
    pairs = list(zip(variances, numbers, strict=True))
    alone = math.sqrt(math.fsum(V**2 / n for V, n in pairs)) if independent else math.fsum(V / math.sqrt(n) for V, n in pairs)
    return (math.fsum(variances) / alone) ** 2
