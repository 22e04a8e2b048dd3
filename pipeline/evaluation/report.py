"""The likelihood report: a table of the test rows, the content of metrics.json, and the verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.evaluation.findings import Annealed, Findings
from vae.evidence import (
    PREFERENCE,
    Estimate,
    Grounds,
    MeanWithError,
    Verdict,
    reported_estimator,
    surpluses,
    two_stage,
    verdict,
)
from vae.evidence.clusters import ENOUGH_GROUPS
from vae.evidence.verdict.assess import grounds_of


class Report:
    """What is said of the test rows, in nats of the raw data.

    Args:
        findings: In nats of the raw data.
        index: Positions of the test rows in the raw file, (N,).
        log_missing: What their missing values count as where rows are compared, (N,); see `Schema.log_missing`.
        tolerance: In nats, that the mean should be trusted to.

    Attributes:
        examples: A row per test row.
        comparable: Log-likelihoods in whose order rows are likely, whatever the units of columns, (N,).
        estimator: The one that is reported.
        verdict: Whether it can be trusted.

    Raises:
        InputError: If a row has no finite log-likelihood.
    """

    def __init__(self, findings: Findings, index: Any, log_missing: Any, tolerance: float) -> None:
        self.findings = findings
        available = [name for name in PREFERENCE if self._has(name)]
        if not available and findings.exact:
            raise InputError(
                f"there is no exact log-likelihood, and no other estimator was asked for: {findings.exact.reason}"
            )
        self.estimator = reported_estimator(available)
        self.examples = self._examples(index)
        _require_finite(self.examples)
        self.comparable = self.examples["log_likelihood"].to_numpy() + log_missing
        self.verdict = self._verdict(tolerance)

    def mean(self, minus: Any = 0.0) -> MeanWithError:
        """The reported mean log p(y), or its paired difference from other values (N,), with its standard error.

        Where only a subset was annealed: importance sampling on all rows and its correction on the subset.
        """
        if self.estimator == "annealed":
            annealed, everywhere = self._annealed, "importance" if self._has("importance") else "annealed"
            subset = annealed.subset.numpy()
            x = self.examples[f"log_likelihood_{everywhere}"] - minus
            better = (self.examples["log_likelihood_annealed"] - minus).to_numpy()[subset]
            return two_stage(torch.tensor(x.to_numpy()), torch.tensor(better), annealed.subset.cpu(), self.findings.groups)
        return self.over(torch.tensor((self.examples["log_likelihood"] - minus).to_numpy()))

    def over(self, values: Tensor, rows: Tensor | None = None) -> MeanWithError:
        """The mean over test rows, or over some of them, with its error over their groups where they have any."""
        groups = self.findings.groups
        return MeanWithError.of(values, groups if groups is None or rows is None else groups[rows])

    def groups(self) -> dict[str, Any] | None:
        """The entry ``groups``: how many the test rows come in, what they are worth, and what to know of so few."""
        entry = self.mean()
        if entry.groups is None or entry.effective_groups is None:
            return None
        note = too_few(entry.groups, entry.effective_groups)
        return {"number": entry.groups, "effective": entry.effective_groups, "note": note}

    def log_likelihood(self) -> dict[str, Any]:
        """The entry ``log_likelihood`` of metrics.json."""
        entry = self.estimators()[self.estimator]
        kept = {"samples": entry.get("samples"), "monte_carlo_error": entry["monte_carlo_error"]}
        return {"estimator": self.estimator} | kept | pair(self.mean())

    def estimators(self) -> dict[str, Any]:
        """The entry ``estimators``: each with mean, standard_error, monte_carlo_error and diagnostics."""
        entries = {"prior": self._prior, "importance": self._importance, "annealed": self._annealed_entry}
        entries |= {"exact": self._exact, "bounds": self._bounds}
        return {name: entry() for name, entry in entries.items() if getattr(self.findings, name) is not None}

    def diagnostics(self) -> dict[str, Any]:
        """The entry ``diagnostics``: of the model, not of an estimator."""
        findings, annealed = self.findings, self.findings.annealed
        found: dict[str, Any] = {"active_units": {str(t): count for t, count in findings.latents.active_units.items()}}
        if findings.gap:
            parts = {"approximation": findings.gap.approximation, "amortisation": findings.gap.amortisation}
            found["inference_gap"] = {name: pair(self.over(part, findings.gap_rows)) for name, part in parts.items()}
            found["inference_gap"]["examples"] = len(findings.gap.approximation)
        if annealed:
            difference = pair(annealed.train_minus_test)
            found["train_minus_test"] = difference | {"examples": annealed.compared, "estimator": "annealed"}
        return found

    def latents(self) -> pd.DataFrame:
        """A row per latent dimension; the KLs are empty where they are not defined."""
        latents = self.findings.latents
        values = {name: getattr(latents, name) for name in ("mean_variance", "kl", "aggregate_mean", "aggregate_variance")}
        values["marginal_kl"] = latents.marginal_kl
        columns = {name: value.cpu().numpy() for name, value in values.items() if value is not None}
        return pd.DataFrame({"dimension": np.arange(1, len(latents.mean_variance) + 1), **columns})

    def ladder(self) -> pd.DataFrame:
        """Importance sampling by number of samples."""
        rungs = self.findings.importance.ladder if self.findings.importance else {}
        rows = [(s, self.over(values)) for s, values in rungs.items()]
        return pd.DataFrame([{"samples": s} | pair(entry) for s, entry in rows], columns=["samples", "mean", "standard_error"])

    def prior_ladder(self) -> pd.DataFrame:
        """Prior sampling by number of samples."""
        estimates = [*self.findings.prior_ladder, *([self.findings.prior] if self.findings.prior else [])]
        rows = [{"samples": estimate.samples} | pair(self.over(estimate.log_likelihood)) for estimate in estimates]
        return pd.DataFrame(rows, columns=["samples", "mean", "standard_error"])

    @property
    def _annealed(self) -> Annealed:
        assert self.findings.annealed is not None
        return self.findings.annealed

    def _has(self, name: str) -> bool:
        value = getattr(self.findings, name)
        return value is not None and not (name == "exact" and value.reason)

    def _examples(self, index: Any) -> pd.DataFrame:
        findings = self.findings
        columns = {
            "index": index,
            **({} if findings.groups is None else {"group": findings.groups.numpy()}),
            "elbo": findings.lower_bound.elbo.cpu().numpy(),
            "reconstruction": findings.lower_bound.reconstruction.cpu().numpy(),
            "kl": findings.lower_bound.kl.cpu().numpy(),
        }
        table = pd.DataFrame(columns)
        for name in ("prior", "importance"):
            if self._has(name):
                self._add(table, name, getattr(findings, name), slice(None))
        if findings.annealed:
            self._add(table, "annealed", findings.annealed.estimate, findings.annealed.subset.cpu().numpy())
        if findings.exact:
            table["log_likelihood_exact"] = findings.exact.log_likelihood.cpu().numpy()
        best = table[f"log_likelihood_{self.estimator}"]
        table["log_likelihood"] = best.fillna(table["log_likelihood_importance"]) if self._has("importance") else best
        return table

    def _add(self, table: pd.DataFrame, name: str, estimate: Estimate, rows: Any) -> None:
        values = {"log_likelihood": estimate.log_likelihood}
        values["effective_sample_size"] = estimate.effective_sample_size
        if estimate.pareto_k.isfinite().any():
            values["pareto_k"] = estimate.pareto_k
        for quantity, value in values.items():
            column = np.full(len(table), np.nan)
            column[rows] = value.cpu().numpy()
            table[f"{quantity}_{name}"] = column

    def _prior(self) -> dict[str, Any]:
        estimate = self.findings.prior
        assert estimate is not None
        diagnostics = _diagnostics(estimate)
        return _entry(self.over(estimate.log_likelihood), estimate) | {"samples": estimate.samples, "diagnostics": diagnostics}

    def _importance(self) -> dict[str, Any]:
        estimate = self.findings.importance
        assert estimate is not None
        diagnostics = _diagnostics(estimate)
        if estimate.pareto_k.isfinite().any():
            diagnostics["median_pareto_k"] = estimate.pareto_k.median().item()
            diagnostics["pareto_k_threshold"] = estimate.pareto_threshold
            diagnostics["share_above_threshold"] = _share(estimate.pareto_k > estimate.pareto_threshold)
        return _entry(self.over(estimate.log_likelihood), estimate) | {"samples": estimate.samples, "diagnostics": diagnostics}

    def _annealed_entry(self) -> dict[str, Any]:
        annealed, checked = self._annealed, self._annealed.checked
        estimate, settings = checked.estimate, checked.settings
        diagnostics = _diagnostics(estimate) | {
            "acceptance": estimate.acceptance.mean(dim=1).tolist(),
            "posterior_start_minus_prior_start": pair(self.over(checked.start_difference, annealed.subset)),
            "temperatures_minus_half": pair(self.over(checked.temperature_difference, annealed.subset)),
            "rows_by_level": torch.bincount(checked.level).tolist(),
            "unsettled_rows": self._unsettled(),
            "surplus": {name: pair(surpluses(other, estimate)) for name, other in self._others().items()},
            "decoder_runs": checked.decoder_runs,
        }
        if self.findings.importance:
            gain = estimate.log_likelihood - self.findings.importance.log_likelihood[annealed.subset]
            diagnostics["minus_importance"] = pair(self.over(gain, annealed.subset))
        return {
            **pair(self.mean() if self.estimator == "annealed" else self.over(estimate.log_likelihood, annealed.subset)),
            "monte_carlo_error": _number(self._annealed_error()),
            "samples": estimate.samples,
            "examples": len(annealed.subset),
            "temperatures": settings.temperatures,
            "leapfrog_steps": settings.leapfrog_steps,
            "step_sizes": list(settings.step_sizes or ()),
            "diagnostics": diagnostics,
        }

    def _annealed_error(self) -> float:
        """Of the two-stage mean: rows that were annealed weigh 1 / n there, and 1 / N - 1 / n in importance sampling."""
        annealed, importance = self._annealed, self.findings.importance
        n, N = len(annealed.subset), len(self.examples)
        variance = annealed.estimate.monte_carlo_variance.sum() / n**2
        if n < N and importance is not None:
            weight = torch.full((N,), 1 / N, dtype=torch.float64)
            weight[annealed.subset] -= 1 / n
            variance = variance + (weight.square() * importance.monte_carlo_variance).sum()
        return math.sqrt(variance.item())

    def _exact(self) -> dict[str, Any]:
        found = self.findings.exact
        assert found is not None
        entry = self.over(found.log_likelihood)
        diagnostics = {"method": found.method, "rows_without_value": int(found.log_likelihood.isnan().sum())}
        return pair(entry) | {"monte_carlo_error": None if found.reason else 0.0, "diagnostics": diagnostics}

    def _bounds(self) -> dict[str, Any]:
        bounds = self.findings.bounds
        assert bounds is not None
        return pair(bounds.gap) | {
            "monte_carlo_error": _number(math.hypot(bounds.lower.monte_carlo_error, bounds.upper.monte_carlo_error)),
            "examples": len(bounds.lower.log_likelihood),
            "settled_share": bounds.settled_share,
            "decoder_runs": bounds.decoder_runs,
            "lower": _entry(MeanWithError.of(bounds.lower.log_likelihood), bounds.lower),
            "upper": _entry(MeanWithError.of(bounds.upper.log_likelihood), bounds.upper),
            "diagnostics": _diagnostics(bounds.lower),
        }

    def _verdict(self, tolerance: float) -> Verdict:
        reason = self.findings.exact and self.findings.exact.reason
        found = verdict(self.estimator, self._grounds(), tolerance)
        missing = (f"the exact value is missing: {reason}",) if reason and not found.trusted else ()
        return replace(found, reasons=missing + found.reasons)

    def _grounds(self) -> Grounds | None:
        """What the verdict on annealing rests on."""
        if not (self.findings.annealed and self.findings.bounds):
            return None
        annealed, groups = self._annealed, self.findings.groups
        found = grounds_of(
            annealed.checked, self.findings.bounds, self._others(), None if groups is None else groups[annealed.subset]
        )
        rows = len(self.examples) if groups is None else len(groups.unique())
        return replace(found, unsettled=self._unsettled(), rows=rows)

    def _unsettled(self) -> list[int]:
        """Rows of the raw file, counted from 1, whose annealing is not settled."""
        annealed = self._annealed
        places = annealed.subset[~annealed.checked.settled.cpu()]
        return [int(index) + 1 for index in self.examples["index"].to_numpy()[places.numpy()]]

    def _others(self) -> dict[str, Estimate]:
        """Other estimates of the annealed rows, which must not be higher."""
        annealed, findings = self._annealed, self.findings
        named = {"importance sampling": findings.importance, "prior sampling": findings.prior}
        others = {name: estimate.of(annealed.subset) for name, estimate in named.items() if estimate}
        return others | {"sampling from a wide prior": annealed.wide}


def pair(entry: MeanWithError) -> dict[str, Any]:
    """For JSON: null where there is no standard error. Over groups also their number and the 95 % interval."""
    found: dict[str, Any] = {"mean": _number(entry.mean), "standard_error": _number(entry.standard_error)}
    if entry.groups is None:
        return found
    groups = {
        "groups": entry.groups,
        "effective_groups": entry.effective_groups,
        "degrees_of_freedom": entry.degrees_of_freedom,
    }
    return found | groups | {"interval_95": [_number(end) for end in entry.interval()]}


def too_few(number: int, effective: float) -> str | None:
    """What to say of errors over groups, unless there are enough of similar sizes."""
    if effective >= ENOUGH_GROUPS:
        return None
    worth = f", worth {effective:.1f} of one size" if effective < number - 0.05 else ""
    return (
        f"the test rows come in {number} groups{worth}: below {ENOUGH_GROUPS} standard errors are themselves uncertain, and "
        "95 % intervals may hold the truth in fewer cases, down to 83 % (docs/likelihood.md, The errors)"
    )


def _entry(entry: MeanWithError, estimate: Estimate) -> dict[str, Any]:
    return pair(entry) | {"monte_carlo_error": _number(estimate.monte_carlo_error)}


def _diagnostics(estimate: Estimate) -> dict[str, Any]:
    sizes = estimate.effective_sample_size
    return {
        "median_effective_sample_size": sizes.median().item(),
        "least_effective_sample_size": sizes.min().item(),
        "unreliable_share": _share(estimate.unreliable),
    }


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _require_finite(examples: pd.DataFrame) -> None:
    needed = ["elbo", "reconstruction", "kl", "log_likelihood"]
    bad = ~np.isfinite(examples[needed].to_numpy()).all(axis=1)
    if bad.any():
        row = int(examples.loc[bad, "index"].iloc[0])
        raise InputError(
            f"row {row + 1} of the raw file, a test row, has no finite log-likelihood ({int(bad.sum())} such rows); look for "
            "extreme values in it"
        )
