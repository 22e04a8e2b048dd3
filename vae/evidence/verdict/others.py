"""What other estimates found more of than the reported one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae.evidence.estimate import Estimate, MeanWithError, jackknife_variance

SURELY = 3.0  # Monte Carlo errors, by which one estimate is higher than another


def excess(other: Tensor, reported: Tensor) -> float:
    """Log of the mean over rows of exp(other - reported) for estimates of log p(y), each (N,).

    E[exp(other)] = p(y) for every row, however noisy the estimate. If the reported ones are right this mean is 1 in
    expectation, and by Markov's inequality exceeds 1 / a with a probability of a at the most. Much more says that the reported
    ones are too low: the other found what they missed.
    """
    return ((other - reported).logsumexp(dim=0) - math.log(len(other))).item()


def surplus(other: Estimate, reported: Estimate, rows: Tensor) -> MeanWithError:
    """Mean over rows of other - reported, in nats, and its Monte Carlo error; rows that are not among ``rows`` (N,) count 0.

    Both are too low in expectation, so that a surplus beyond its error is what the reported ones lack at the least.
    """
    N = len(other.log_likelihood)
    difference = (other.log_likelihood - reported.log_likelihood).where(rows, 0.0)
    without = other.leave_one_out.where(rows, 0.0)
    if other.shared_draws:
        variance = jackknife_variance(without.mean(dim=1, keepdim=True)).sum()
    else:
        variance = jackknife_variance(without).sum() / N**2
    own = reported.monte_carlo_variance.where(rows, 0.0).sum() / N**2
    return MeanWithError(difference.mean().item(), math.sqrt((variance + own).item()))


def surpluses(other: Estimate, reported: Estimate) -> MeanWithError:
    """The most telling `surplus`: of all rows, of those on 100 effective samples or more, or of those surely higher.

    A row is surely higher where the other is by more than three of its Monte Carlo errors. Few draws may have found what
    annealing missed: how many do not say how sure they are, their errors do.
    """
    difference = other.log_likelihood - reported.log_likelihood
    surely = difference > SURELY * (other.monte_carlo_variance + reported.monte_carlo_variance).sqrt()
    candidates = [surplus(other, reported, rows) for rows in (torch.ones_like(surely), other.well_founded, surely)]
    known = [higher for higher in candidates if not math.isnan(higher.mean - SURELY * higher.standard_error)]
    return max(known or candidates[:1], key=lambda higher: higher.mean - SURELY * higher.standard_error)
