"""What an estimator returns: log p(y) per example, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from scipy.special import stdtrit
from torch import Tensor

from vae.evidence import clusters

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

Advance = Callable[[int], object]
LEAST_EFFECTIVE_SAMPLES = 10
SURE = 0.25  # nats, from which on two estimates of a row differ for sure
WELL_FOUNDED = 100  # effective samples, from which on an estimate of a row is held against another


@dataclass(frozen=True)
class MeanWithError:
    """A mean over examples and its standard error.

    Attributes:
        mean: The mean.
        standard_error: Of the mean.
        degrees_of_freedom: Of Student's t, by which an interval is a multiple of the standard error.
        groups: G, the groups whose examples depend on each other; None where each example is by itself.
        effective_groups: G*, as many groups of one size would say as much of the standard error; see `clusters`.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float = math.inf
    groups: int | None = None
    effective_groups: float | None = None

    @classmethod
    def of(cls, values: Tensor, groups: Tensor | None = None) -> MeanWithError:
        """The mean of values (N,), such as paired differences; a single one has no standard error: NaN.

        Args:
            values: Of N examples.
            groups: Of the examples, integers (N,): examples of one group may depend on each other. None: all are independent.

        Raises:
            ValueError: If there is not one group for each value.
        """
        N, mean = len(values), values.mean().item()
        if groups is None:
            return cls(mean, values.std().item() / math.sqrt(N) if N > 1 else math.nan, N - 1)
        if groups.shape != values.shape:
            raise ValueError(f"groups must have shape ({N},), one for each value; got {tuple(groups.shape)}")
        total = clusters.totals((values - mean) / N, groups)
        error = math.sqrt(clusters.covariance(total, total))
        return cls(mean, error, len(total) - 1, len(total), clusters.effective_groups(groups))

    def minus(self, other: MeanWithError) -> MeanWithError:
        """The difference from a mean over other, independent examples."""
        variances = self.standard_error**2, other.standard_error**2
        error = math.hypot(self.standard_error, other.standard_error)
        degrees = clusters.combined(variances, (self.degrees_of_freedom, other.degrees_of_freedom))
        if self.effective_groups is None or other.effective_groups is None:
            return MeanWithError(self.mean - other.mean, error, degrees)
        effective = clusters.combined(variances, (self.effective_groups, other.effective_groups))
        return MeanWithError(self.mean - other.mean, error, degrees, (self.groups or 0) + (other.groups or 0), effective)

    @property
    def margin(self) -> float:
        """Two standard errors, or more where there are so few degrees of freedom that 95 % by Student's t asks for more."""
        return max(2.0, float(stdtrit(self.degrees_of_freedom, 0.975))) * self.standard_error

    def within(self, limit: float) -> bool:
        """Whether the mean is known to be smaller in size than a limit; not where it has no standard error."""
        return abs(self.mean) + self.margin < limit

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval around the mean, by Student's t; NaN without a standard error."""
        half = float(stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * self.standard_error
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Estimate:
    """log p(y) per example, in nats; all tensors are float64 on the model's device.

    Attributes:
        log_likelihood: Estimates, shape (N,).
        effective_sample_size: (sum w)^2 / sum w^2 of the S weights of each example, shape (N,); between 1 and S.
        samples: S, the number of weights per example.
        leave_one_out: Estimates without one of B independent blocks of draws, shape (B, N); B = 0 where S < 10.
        shared_draws: Whether all examples use the same draws, so that their errors are correlated.
        pareto_k: Shape parameter of the weights' upper tail, shape (N,); NaN where it is not defined (see `pareto`).
        ladder: By number of samples s, the mean over disjoint blocks of s draws of the s-sample estimate, shape (N,).
        acceptance: Acceptance rates of annealing by range of temperatures, shape (R, N); R = 0 for other estimators.
        ends: Of annealing, means and variances over a row's chains, by their weights, of F features of where they end, shape
            (2, F, N): latents, log p(z) and log p(y|z). F = 0 for other estimators.
        rounding: Of annealing, what the model's precision rounds log p(y|z) to, (N,) in nats; empty for other estimators.
        least_effective_sample_size: Below which an example is unreliable; a quarter of the chains for annealing.
    """

    log_likelihood: Tensor
    effective_sample_size: Tensor
    samples: int
    leave_one_out: Tensor
    shared_draws: bool
    pareto_k: Tensor
    ladder: Mapping[int, Tensor] = field(default_factory=dict)
    acceptance: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    ends: Tensor = field(default_factory=lambda: torch.zeros(2, 0, 0))
    rounding: Tensor = field(default_factory=lambda: torch.zeros(0))
    least_effective_sample_size: float = LEAST_EFFECTIVE_SAMPLES

    @property
    def mean(self) -> float:
        """The mean over examples."""
        return self.log_likelihood.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over examples. It already contains the noise of the draws; NaN for one example."""
        return MeanWithError.of(self.log_likelihood).standard_error

    @property
    def monte_carlo_variance(self) -> Tensor:
        """Variance of each example's estimate over fresh draws, bias excluded, shape (N,); NaN where S < 10.

        A jackknife over B blocks of draws: in expectation at least (B - 1) / B of the variance with one block fewer (Efron and
        Stein 1981), so that it does not understate heavy tails as the delta method does.
        """
        return jackknife_variance(self.leave_one_out)

    @property
    def monte_carlo_error(self) -> float:
        """Standard deviation of `mean` over fresh draws for the same examples, bias excluded; NaN where S < 10.

        Where draws are shared, the mean over examples is recomputed without each block of draws; where each example has its
        own, the variances of the examples add up.
        """
        if self.shared_draws:
            return jackknife_variance(self.leave_one_out.mean(dim=1, keepdim=True)).sqrt().item()
        return self.monte_carlo_variance.sum().sqrt().item() / len(self.log_likelihood)

    @property
    def pareto_threshold(self) -> float:
        """min(1 - 1 / log10 S, 0.7): above it S draws are too few for these weights (Vehtari et al. 2024, section 3)."""
        return min(1 - 1 / math.log10(self.samples), 0.7) if self.samples > 1 else math.nan

    @property
    def unreliable(self) -> Tensor:
        """Examples whose Monte Carlo error means little: Pareto k above the threshold, or too few effective samples."""
        few = ~(self.effective_sample_size >= self.least_effective_sample_size)
        return (self.pareto_k > self.pareto_threshold) | few

    @property
    def well_founded(self) -> Tensor:
        """Examples with 100 effective samples or more, (N,): by them another estimate can be judged."""
        return self.effective_sample_size >= WELL_FOUNDED

    def or_better(self, other: Estimate) -> Estimate:
        """This estimate, or for each row another one where that has more effective samples.

        Where that which has fewer found more, by a quarter of a nat and an error, the other missed something: neither is well
        founded there.
        """
        rows = (other.effective_sample_size > self.effective_sample_size).nonzero()[:, 0]
        chosen = self.replaced(rows, other.of(rows))
        more = torch.maximum(self.log_likelihood, other.log_likelihood) - chosen.log_likelihood
        error = (self.monte_carlo_variance + other.monte_carlo_variance).sqrt()
        missed = (more > SURE) & (more > error)
        return replace(chosen, effective_sample_size=chosen.effective_sample_size.masked_fill(missed, 1.0))

    def shifted(self, by: Tensor) -> Estimate:
        """The estimate with something added to each row's log-likelihood, (N,)."""
        return replace(
            self,
            log_likelihood=self.log_likelihood + by,
            leave_one_out=self.leave_one_out + by,
            ladder={samples: values + by for samples, values in self.ladder.items()},
        )

    def condensed(self) -> Estimate:
        """The estimate with two values in place of B in ``leave_one_out``, of the same `monte_carlo_variance`.

        A fifth of the memory for as many rows; only where each row has its own draws, of which nothing else is asked.
        """
        if self.shared_draws or not len(self.leave_one_out):
            return self
        error = self.monte_carlo_variance.sqrt()
        return replace(self, leave_one_out=torch.stack([self.log_likelihood - error, self.log_likelihood + error]))

    def of(self, rows: Tensor) -> Estimate:
        """The estimate of some rows, at positions (n,)."""
        return replace(
            self,
            log_likelihood=self.log_likelihood[rows],
            effective_sample_size=self.effective_sample_size[rows],
            leave_one_out=self.leave_one_out[:, rows],
            pareto_k=self.pareto_k[rows],
            ladder={s: values[rows] for s, values in self.ladder.items()},
            acceptance=self.acceptance[:, rows] if len(self.acceptance) else self.acceptance,
            ends=self.ends[..., rows] if self.ends.shape[1] else self.ends,
            rounding=self.rounding[rows] if len(self.rounding) else self.rounding,
        )

    def replaced(self, rows: Tensor, by: Estimate) -> Estimate:
        """This estimate with another one's of some rows, at positions (n,); acceptance rates stay."""

        def joined(name: str) -> Tensor:
            value: Tensor = getattr(self, name).clone()
            value[..., rows] = getattr(by, name)
            return value

        return replace(
            self,
            log_likelihood=joined("log_likelihood"),
            effective_sample_size=joined("effective_sample_size"),
            leave_one_out=joined("leave_one_out"),
            pareto_k=joined("pareto_k"),
            ends=joined("ends") if self.ends.shape[1] else self.ends,
            rounding=joined("rounding") if len(self.rounding) else self.rounding,
        )


def jackknife_variance(leave_one_out: Tensor) -> Tensor:
    """The delete-one variance of (B, N) estimates, (N,)."""
    B = len(leave_one_out)
    if not B:
        return torch.full(leave_one_out.shape[1:], math.nan, dtype=leave_one_out.dtype, device=leave_one_out.device)
    return (leave_one_out - leave_one_out.mean(dim=0)).square().sum(dim=0) * (B - 1) / B


def ignore(steps: int) -> None:
    """Progress that nobody watches."""


def require_samples(S: int, name: str = "samples") -> None:
    """Refuse fewer than one sample."""
    if S < 1:
        raise ValueError(f"{name} must be at least 1; got {S}")


def rows_per_chunk(vae: LatentModel, draws: int, budget: int = 2**21) -> int:
    """How many rows, each with that many draws, keep the widest layer within the budget (8 MiB in float32)."""
    card = vae.card
    layers = (network.widest(card.shape) for network in (card.generative, card.inference))
    widest = max(card.data_dim, vae.prior.widest, vae.inference.posterior.widest, *layers)
    return max(1, budget // (draws * widest))


def rows_per_block(vae: LatentModel, draws: int) -> int:
    """How many rows, each with that many draws, one of several processes takes at a time.

    Many blocks divide well between processes, but small ones spend their time in calls: half as many rows take a fifth longer
    a row.
    """
    return rows_per_chunk(vae, draws, 2**19)


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
