"""The held-out log-likelihood of the VAE and of its baselines, and how far to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from pipeline.base.compute import use_threads
from pipeline.base.files import write_json
from pipeline.evaluation.baselines import Baseline, fit_baselines
from pipeline.evaluation.estimation import Estimation
from pipeline.evaluation.hidden_values import fill, quality
from pipeline.evaluation.pieces import Pieces
from pipeline.evaluation.report import Report, pair
from pipeline.figures import checks as figures
from pipeline.figures.comparison import likelihood_comparison
from pipeline.figures.pixels import ImageGrid
from pipeline.model.loading import load_model
from pipeline.params.evaluate import EvaluateParams
from pipeline.stages.job import Job, running
from pipeline.tables.labels import baseline_label, condition, estimator_label, nats
from pipeline.tables.schema import Schema, load_groups, load_index, load_schema, load_split
from pipeline.tables.statistics import Array
from vae.bar import advancing
from vae.evidence import PREFERENCE, log_likelihood_given_rest, reconstruction_by_column
from vae.model.latent_model import LatentModel

EXTREMES = 10


def main() -> None:
    """Run the stage."""
    with running("evaluate", EvaluateParams) as job:
        schema = load_schema()
        use_threads(job.params.threads)
        with threadpool_limits(job.params.threads):  # scikit-learn's threads beside torch's
            metrics = _evaluate(job, schema)
    reported = metrics["log_likelihood"]
    statement = metrics["verdict"]["statement"]
    unit = nats(reported.get("given"))
    print(f"evaluated {metrics['examples']} test rows: log-likelihood {_pm(reported)} {unit}, {statement}")
    if note := metrics.get("groups", {}).get("note"):
        print(f"  note: {note}")


def _evaluate(job: Job[EvaluateParams], schema: Schema) -> dict[str, Any]:
    vae = load_model(schema)
    train, valid, test = (load_split(split) for split in ("train", "valid", "test"))
    estimation = Estimation(vae, job.params, schema, train, valid, test, Pieces(job.saved), _groups())
    totals = vae.generative.likelihood.totals(len(schema.columns))
    baselines = _baselines(job.params, schema, totals)
    report = Report(estimation.run(), load_index("test"), schema.log_missing(test), job.params.evaluate.tolerance)
    for baseline in baselines:
        report.examples[baseline.name] = baseline.density.score_samples(np.asarray(test)) + schema.log_jacobian(test)
    if schema.shape is None:
        report.examples = pd.concat([report.examples, _parts(vae, job.params, schema, np.array(test))], axis=1)
    metrics = summarise(report, baselines, schema, condition(totals, schema.names))
    filled = _imputed(vae, job.params, schema, metrics)
    with job.outputs() as (folder,):
        write_json(folder / "metrics.json", metrics)
        report.examples.to_parquet(folder / "examples.parquet", index=False)
        report.ladder().to_csv(folder / "ladder.csv", index=False, lineterminator="\n")
        report.latents().to_csv(folder / "latents.csv", index=False, lineterminator="\n")
        filled.to_csv(folder / "imputed.csv", index=False, lineterminator="\n")
        _comparison(report, metrics, folder / "likelihoods.png")
        _ladder(report, metrics, folder / "ladder.png")
        _checks(report, metrics, folder / "bounds.png")
        _extremes(report, schema, np.array(test), folder / "extremes.png")
    return metrics


def _parts(vae: LatentModel, params: EvaluateParams, schema: Schema, test: Array) -> pd.DataFrame:
    """Of each value, in nats of the raw data, its part of the reconstruction, and log p given the rest of its row.

    The latter needs an inference network that takes gaps.
    """
    rows, raw = vae.as_rows(test), schema.log_derivatives(test)
    parts = {"reconstruction": reconstruction_by_column(vae, rows, params.evaluate.elbo_samples, seed=params.seed)}
    if vae.inference.may_miss(rows).all():
        S = params.evaluate.imputation.samples
        with advancing("each value given its row", len(rows)) as advance:
            parts["given_rest"] = log_likelihood_given_rest(vae, rows, S, seed=params.seed, advance=advance)
    columns = {name: part.cpu().numpy() + raw for name, part in parts.items()}
    return pd.DataFrame({f"{name}_{of}": part[:, d] for name, part in columns.items() for d, of in enumerate(schema.names)})


def _imputed(vae: LatentModel, params: EvaluateParams, schema: Schema, metrics: dict[str, Any]) -> pd.DataFrame:
    """What is filled into the gaps of the test rows; how well goes to ``metrics``."""
    settings = params.evaluate.imputation
    test = np.array(load_split("test"))
    if schema.has_missing:
        metrics["imputation"] = quality(vae, schema, np.array(load_split("train")), test, settings, params.seed)
    return fill(vae, schema, test, load_index("test"), settings, params.seed)


def summarise(report: Report, baselines: list[Baseline], schema: Schema, given: str | None) -> dict[str, Any]:
    """The content of metrics.json; means over test examples, each with its standard error over examples.

    Where log p is given something, its entry says what.
    """
    examples = report.examples
    least = examples.iloc[int(report.comparable.argmin())]
    parts = {name: _mean(report, name) for name in ("elbo", "reconstruction", "kl")}
    log_likelihood = report.log_likelihood() | ({} if given is None else {"given": given})
    return {
        "examples": len(examples),
        **({} if report.findings.groups is None else {"groups": report.groups()}),
        **{name: part["mean"] for name, part in parts.items()},
        "standard_errors": {name: part["standard_error"] for name, part in parts.items()},
        "bits_per_dimension": schema.bits_per_dimension(log_likelihood["mean"]),
        "least_likely": {"index": int(least["index"]), "log_likelihood": float(least["log_likelihood"])},
        "log_likelihood": log_likelihood,
        "verdict": {
            "trusted": report.verdict.trusted,
            "statement": str(report.verdict),
            "reasons": list(report.verdict.reasons),
            "tolerance": report.verdict.tolerance,
        },
        "estimators": report.estimators(),
        "diagnostics": report.diagnostics(),
        "baselines": {
            baseline.name: _mean(report, baseline.name)
            | dict(baseline.described)
            | {"vae_minus_baseline": pair(report.mean(minus=examples[baseline.name]))}
            for baseline in baselines
        },
    }


def _mean(report: Report, column: str) -> dict[str, Any]:
    return pair(report.over(torch.tensor(report.examples[column].to_numpy())))


def _groups() -> dict[str, torch.Tensor | None]:
    found = {split: load_groups(split) for split in ("train", "test")}
    return {split: None if groups is None else torch.from_numpy(groups) for split, groups in found.items()}


def _baselines(params: EvaluateParams, schema: Schema, totals: list[list[int]]) -> list[Baseline]:
    return fit_baselines(
        np.asarray(load_split("train"), dtype=np.float64),
        np.asarray(load_split("valid"), dtype=np.float64),
        schema,
        components=params.evaluate.mixture_components,
        totals=totals,
        seed=params.seed,
    )


def _comparison(report: Report, metrics: dict[str, Any], path: Path) -> None:
    entries = {f"VAE, {estimator_label(name, entry)}": entry for name, entry in _estimates(metrics).items()}
    entries["VAE, ELBO"] = {"mean": metrics["elbo"], "standard_error": metrics["standard_errors"]["elbo"]}
    for name, entry in metrics["baselines"].items():
        entries[baseline_label(name, entry)] = entry
    rows = {label: (entry["mean"], entry["standard_error"]) for label, entry in entries.items()}
    baselines = metrics["baselines"].items()
    examples = report.examples
    differences = {baseline_label(name, entry): examples["log_likelihood"] - examples[name] for name, entry in baselines}
    unit = nats(metrics["log_likelihood"].get("given"))
    likelihood_comparison(rows, pd.DataFrame(differences), path, unit)


def _estimates(metrics: dict[str, Any]) -> dict[str, Any]:
    """Those of the test rows that have a value, the reported one first."""
    entries = {name: metrics["estimators"][name] for name in PREFERENCE if name in metrics["estimators"]}
    return {name: entry for name, entry in entries.items() if entry["mean"] is not None}


def _ladder(report: Report, metrics: dict[str, Any], path: Path) -> None:
    found = metrics["estimators"]
    levels = {name: (estimator_label(name, found[name]), found[name]) for name in ("exact", "annealed") if name in found}
    levels = {name: level for name, level in levels.items() if level[1]["mean"] is not None}
    levels["elbo"] = ("ELBO", {"mean": metrics["elbo"], "standard_error": metrics["standard_errors"]["elbo"]})
    figures.ladder(report.ladder(), report.prior_ladder(), levels, path, nats(metrics["log_likelihood"].get("given")))


def _checks(report: Report, metrics: dict[str, Any], path: Path) -> None:
    found, bounds = metrics["estimators"], report.findings.bounds
    gaps = bounds.upper.log_likelihood - bounds.lower.log_likelihood if bounds else None
    entries = {"bounds:\nupper - lower": found["bounds"]} if bounds else {}
    diagnostics = found["annealed"]["diagnostics"] if "annealed" in found else {}
    if diagnostics:
        entries["start:\nq - prior"] = diagnostics["posterior_start_minus_prior_start"]
        entries["temperatures:\nT - T / 2"] = diagnostics["temperatures_minus_half"]
    checked = {label: (entry["mean"], entry["standard_error"]) for label, entry in entries.items()}
    rows = None if gaps is None else gaps.cpu().numpy()
    figures.checks(rows, checked, metrics["verdict"]["tolerance"], diagnostics.get("acceptance", []), path)


def _extremes(report: Report, schema: Schema, test: Array, path: Path) -> None:
    examples, order = report.examples, report.comparable.argsort(kind="stable")
    n = min(EXTREMES, len(order) // 2)
    places = np.stack([order[:n], order[len(order) - n :]])
    values = [examples["log_likelihood"].to_numpy()[row] for row in places]
    if schema.shape:
        raw = schema.to_raw(test)
        images = ImageGrid(schema.shape, schema.units, (float(np.nanmin(raw)), float(np.nanmax(raw))))
        figures.extreme_images(images, raw[places], values, path)
    else:
        of = "given_rest" if f"given_rest_{schema.names[0]}" in examples else "reconstruction"
        parts = np.where(np.isnan(test), np.nan, examples[[f"{of}_{name}" for name in schema.names]].to_numpy())
        labels = [f"row {examples['index'][i] + 1}: {examples['log_likelihood'][i]:.1f}" for i in places.flat]
        rows = places.reshape(-1)
        relative = parts - pd.DataFrame(parts).median().to_numpy()
        figures.extreme_rows(relative[rows], schema.table(test[rows]), labels, path)


def _pm(entry: dict[str, Any]) -> str:
    error = "" if entry["standard_error"] is None else f" ± {entry['standard_error']:.2f}"
    return f"{entry['mean']:.2f}{error}"
