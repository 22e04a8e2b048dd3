"""The content of metrics.json: means over test rows with their errors, and what they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.evaluation.baselines import Baseline
from pipeline.evaluation.findings import METRICS, Annealed
from pipeline.evaluation.report import Report
from pipeline.tables.labels import nats, plus_minus
from pipeline.tables.schema import Schema
from vae.evidence import Bounds, Estimate, Exact, MeanWithError, surpluses
from vae.evidence.clusters import ENOUGH_GROUPS


def metrics_of(report: Report, baselines: Sequence[Baseline], schema: Schema, given: str | None) -> dict[str, Any]:
    """The content of metrics.json; means over test examples, each with its standard error over examples.

    Where log p is given something, its entry says what.
    """
    examples, verdict, mean = report.examples, report.verdict, report.mean()
    parts = {name: pair(report.over_column(name)) for name in METRICS}
    estimators = {
        name: entry(report, value) for name, entry in ENTRIES.items() if (value := getattr(report.findings, name)) is not None
    }
    reported = estimators[report.estimator]
    log_likelihood = {"samples": reported.get("samples"), "monte_carlo_error": reported["monte_carlo_error"]} | pair(mean)
    number, effective = mean.groups or 0, mean.effective_groups or 0.0
    groups = {"number": number, "effective": effective, "note": too_few(number, effective)}
    least = examples.iloc[int(report.comparable.argmin())]
    return {
        "examples": len(examples),
        **({"groups": groups} if number else {}),
        **{name: part["mean"] for name, part in parts.items()},
        "standard_errors": {name: part["standard_error"] for name, part in parts.items()},
        "bits_per_dimension": schema.bits_per_dimension(mean.mean),
        "least_likely": {"index": int(least["index"]), "log_likelihood": float(least["log_likelihood"])},
        "log_likelihood": {"estimator": report.estimator} | log_likelihood | ({} if given is None else {"given": given}),
        "verdict": {"trusted": verdict.trusted, "statement": str(verdict), "tolerance": verdict.tolerance}
        | {"reasons": list(verdict.reasons)},
        "estimators": estimators,
        "diagnostics": _of_model(report),
        "baselines": {
            baseline.name: pair(report.over_column(baseline.name))
            | dict(baseline.described)
            | {"vae_minus_baseline": pair(report.mean(minus=examples[baseline.name]))}
            for baseline in baselines
        },
    }


def headline(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the stage says when it has ended: the reported figure, and what to know of so few groups."""
    reported, statement = metrics["log_likelihood"], metrics["verdict"]["statement"]
    figure = f"log-likelihood {plus_minus(reported)} {nats(reported.get('given'))}"
    yield f"evaluated {metrics['examples']} test rows: {figure}, {statement}"
    if note := metrics.get("groups", {}).get("note"):
        yield f"  note: {note}"


def pair(entry: MeanWithError) -> dict[str, Any]:
    """A mean for JSON: null where there is no standard error; over groups also their number and the 95 % interval."""
    content: dict[str, Any] = {"mean": _number(entry.mean), "standard_error": _number(entry.standard_error)}
    if entry.groups is None:
        return content
    names = ("groups", "effective_groups", "degrees_of_freedom")
    interval = [_number(end) for end in entry.interval()]
    return content | {name: getattr(entry, name) for name in names} | {"interval_95": interval}


def too_few(number: int, effective: float) -> str | None:
    """What to say of errors over groups, unless there are enough of similar sizes."""
    if effective >= ENOUGH_GROUPS:
        return None
    worth = f", worth {effective:.1f} of one size" if effective < number - 0.05 else ""
    return (
        f"the test rows come in {number} groups{worth}: below {ENOUGH_GROUPS} standard errors are themselves uncertain, and "
        "95 % intervals may hold the truth in fewer cases, down to 83 % (docs/likelihood.md, The errors)"
    )


def _of_model(report: Report) -> dict[str, Any]:
    """The entry ``diagnostics``: of the model, not of an estimator."""
    findings, annealed = report.findings, report.findings.annealed
    content: dict[str, Any] = {"active_units": {str(t): count for t, count in findings.latents.active_units.items()}}
    if findings.gap:
        parts = {"approximation": findings.gap.approximation, "amortisation": findings.gap.amortisation}
        means = {name: pair(report.over(part, findings.gap_rows)) for name, part in parts.items()}
        content["inference_gap"] = means | {"examples": len(findings.gap.approximation)}
    if annealed:
        difference = pair(annealed.train_minus_test)
        content["train_minus_test"] = difference | {"examples": annealed.compared, "estimator": "annealed"}
    return content


def sampling_entry(report: Report, estimate: Estimate) -> dict[str, Any]:
    """The entry of prior or importance sampling; the former, whose draws all examples share, has no Pareto k."""
    diagnostics = _diagnostics(estimate)
    if estimate.pareto_k.isfinite().any():
        diagnostics["median_pareto_k"] = estimate.pareto_k.median().item()
        diagnostics["pareto_k_threshold"] = estimate.pareto_threshold
        diagnostics["share_above_threshold"] = _share(estimate.pareto_k > estimate.pareto_threshold)
    return _entry(report.over(estimate.log_likelihood), estimate) | {"samples": estimate.samples, "diagnostics": diagnostics}


def annealing_entry(report: Report, annealed: Annealed) -> dict[str, Any]:
    """The entry of annealing, with what its checks say; where it is reported, its mean is that of two stages."""
    estimate, checked, settings, rows = annealed.estimate, annealed.checked, annealed.checked.settings, annealed.subset
    diagnostics = _diagnostics(estimate) | {
        "acceptance": estimate.acceptance.mean(dim=1).tolist(),
        "posterior_start_minus_prior_start": pair(report.over(checked.start_difference, rows)),
        "temperatures_minus_half": pair(report.over(checked.temperature_difference, rows)),
        "rows_by_level": torch.bincount(checked.level).tolist(),
        "unsettled_rows": report.unsettled,
        "surplus": {name: pair(surpluses(other, estimate)) for name, other in report.others.items()},
        "decoder_runs": checked.decoder_runs,
    }
    if importance := report.findings.importance:
        gain = estimate.log_likelihood - importance.log_likelihood[rows]
        diagnostics["minus_importance"] = pair(report.over(gain, rows))
    return {
        **pair(report.mean() if report.estimator == "annealed" else report.over(estimate.log_likelihood, rows)),
        "monte_carlo_error": _number(_error_of_two_stages(annealed, importance, len(report.examples))),
        "samples": estimate.samples,
        "examples": len(rows),
        "temperatures": settings.temperatures,
        "leapfrog_steps": settings.leapfrog_steps,
        "step_sizes": list(settings.step_sizes or ()),
        "diagnostics": diagnostics,
    }


def _error_of_two_stages(annealed: Annealed, importance: Estimate | None, N: int) -> float:
    """Rows that were annealed weigh 1 / n in the two-stage mean, and 1 / N - 1 / n in importance sampling."""
    n = len(annealed.subset)
    variance = annealed.estimate.monte_carlo_variance.sum() / n**2
    if n < N and importance is not None:
        weight = torch.full((N,), 1 / N, dtype=torch.float64)
        weight[annealed.subset] -= 1 / n
        variance = variance + (weight.square() * importance.monte_carlo_variance).sum()
    return math.sqrt(variance.item())


def exact_entry(report: Report, exact: Exact) -> dict[str, Any]:
    """The entry of exact values, which have no Monte Carlo error, nor a mean where some are missing."""
    diagnostics = {"method": exact.method, "rows_without_value": int(exact.log_likelihood.isnan().sum())}
    mean = pair(report.over(exact.log_likelihood))
    return mean | {"monte_carlo_error": None if exact.reason else 0.0, "diagnostics": diagnostics}


def bounds_entry(report: Report, bounds: Bounds) -> dict[str, Any]:
    """The entry of two-sided bounds: their difference, on simulated rows."""
    return pair(bounds.gap) | {
        "monte_carlo_error": _number(math.hypot(bounds.lower.monte_carlo_error, bounds.upper.monte_carlo_error)),
        "examples": len(bounds.lower.log_likelihood),
        "settled_share": bounds.settled_share,
        "decoder_runs": bounds.decoder_runs,
        "upper_repeated": bounds.upper_repeated,
        "lower": _entry(MeanWithError.of(bounds.lower.log_likelihood), bounds.lower),
        "upper": _entry(MeanWithError.of(bounds.upper.log_likelihood), bounds.upper),
        "diagnostics": _diagnostics(bounds.lower),
    }


# for each estimator its entry, with mean, standard_error, monte_carlo_error and diagnostics
ENTRIES: Mapping[str, Callable[[Report, Any], dict[str, Any]]] = {
    "prior": sampling_entry,
    "importance": sampling_entry,
    "annealed": annealing_entry,
    "exact": exact_entry,
    "bounds": bounds_entry,
}


def _entry(mean: MeanWithError, estimate: Estimate) -> dict[str, Any]:
    return pair(mean) | {"monte_carlo_error": _number(estimate.monte_carlo_error)}


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
