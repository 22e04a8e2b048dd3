"""What the estimators say of the test rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from vae.evidence import Bounds, Checked, Estimate, Exact, Gap, Latents, LowerBound, MeanWithError


@dataclass(frozen=True)
class Annealed:
    """Annealing of a random subset of the test rows, and its checks.

    Attributes:
        checked: Annealing of the rows ``subset``, every one of them checked.
        subset: Positions of the rows among the test rows, increasing, (n,).
        wide: The same rows under draws from a distribution wider than the prior, which finds what lies in its tails.
        train_minus_test: Mean log density of m training rows minus that of as many test rows, with what their missing values
            count as: see `Schema.log_missing`.
        compared: m, of the test rows.
    """

    checked: Checked
    subset: Tensor
    wide: Estimate
    train_minus_test: MeanWithError
    compared: int

    @property
    def estimate(self) -> Estimate:
        """The annealing of the rows ``subset``."""
        return self.checked.estimate

    def shifted(self, by: Tensor) -> Annealed:
        """The annealing with something added to each row's log-likelihood, (n,)."""
        return replace(self, checked=self.checked.shifted(by), wide=self.wide.shifted(by))


@dataclass(frozen=True)
class Findings:
    """What is known of the test rows, in nats; None stands for what was not asked for.

    Attributes:
        groups: Of the test rows, integers (N,); None where each row is by itself.
        gap_rows: Positions of the rows of ``gap``.
    """

    lower_bound: LowerBound
    latents: Latents
    prior: Estimate | None = None
    prior_ladder: tuple[Estimate, ...] = ()
    importance: Estimate | None = None
    annealed: Annealed | None = None
    bounds: Bounds | None = None
    exact: Exact | None = None
    gap: Gap | None = None
    gap_rows: Tensor | None = None
    groups: Tensor | None = None

    def of_raw_data(self, added: Tensor, log_jacobian: Callable[[Tensor], Tensor]) -> Findings:
        """The findings with log densities of the raw rows, instead of those of the prepared ones.

        Args:
            added: log |dy/dx| of the test rows, (N,), float64.
            log_jacobian: The same of any rows (N, D).
        """
        annealed, bounds, exact = self.annealed, self.bounds, self.exact
        if annealed:
            annealed = annealed.shifted(added[annealed.subset])
        if bounds:
            simulated = log_jacobian(bounds.y)
            bounds = replace(bounds, lower=bounds.lower.shifted(simulated), upper=bounds.upper.shifted(simulated))
        return replace(
            self,
            lower_bound=replace(self.lower_bound, reconstruction=self.lower_bound.reconstruction + added),
            prior=self.prior and self.prior.shifted(added),
            prior_ladder=tuple(estimate.shifted(added) for estimate in self.prior_ladder),
            importance=self.importance and self.importance.shifted(added),
            annealed=annealed,
            bounds=bounds,
            exact=exact and replace(exact, log_likelihood=exact.log_likelihood + added),
        )


# what is known of each test row beside log p, by name, (N,): columns of examples.parquet, means in metrics.json and in MLflow
METRICS: dict[str, Callable[[Findings], Tensor]] = {
    "elbo": lambda findings: findings.lower_bound.elbo,
    "reconstruction": lambda findings: findings.lower_bound.reconstruction,
    "kl": lambda findings: findings.lower_bound.kl,
}
