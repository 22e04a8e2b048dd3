"""The pictures of the evaluation, from its report and the content of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.report import Report
from pipeline.evaluation.side_tables import importance_ladder, prior_ladder
from pipeline.figures.checks import differences_and_acceptance, estimates_by_samples, extreme_images, extreme_rows
from pipeline.figures.comparison import likelihood_comparison
from pipeline.figures.pixels import ImageGrid
from pipeline.tables.labels import baseline_label, estimator_label, nats
from pipeline.tables.schema import Schema
from pipeline.tables.statistics import Array
from vae.evidence import PREFERENCE

EXTREMES = 10

Metrics = Mapping[str, Any]


def draw(report: Report, metrics: Metrics, schema: Schema, test: Array, folder: Path) -> None:
    """Draw all of them to a folder; ``test`` are the prepared test rows."""
    comparison(report, metrics, folder / "likelihoods.png")
    ladder(report, metrics, folder / "ladder.png")
    checks(report, metrics, folder / "bounds.png")
    extremes(report, schema, test, folder / "extremes.png")


def comparison(report: Report, metrics: Metrics, path: Path) -> None:
    """The VAE's log-likelihood by each estimator that has a value, the reported one first, beside those of the baselines."""
    estimators = {name: metrics["estimators"][name] for name in PREFERENCE if name in metrics["estimators"]}
    entries = {
        f"VAE, {estimator_label(name, entry)}": entry for name, entry in estimators.items() if entry["mean"] is not None
    }
    entries["VAE, ELBO"] = _elbo(metrics)
    labels = {name: baseline_label(name, entry) for name, entry in metrics["baselines"].items()}
    entries |= {labels[name]: entry for name, entry in metrics["baselines"].items()}
    rows = {label: (entry["mean"], entry["standard_error"]) for label, entry in entries.items()}
    examples = report.examples
    differences = pd.DataFrame({label: examples["log_likelihood"] - examples[name] for name, label in labels.items()})
    likelihood_comparison(rows, differences, path, _unit(metrics))


def ladder(report: Report, metrics: Metrics, path: Path) -> None:
    """Estimates by number of samples, and those that have none."""
    estimators = metrics["estimators"]
    levels = {
        name: (estimator_label(name, estimators[name]), estimators[name])
        for name in ("exact", "annealed")
        if name in estimators and estimators[name]["mean"] is not None
    }
    levels["elbo"] = ("ELBO", _elbo(metrics))
    estimates_by_samples(importance_ladder(report), prior_ladder(report), levels, path, _unit(metrics))


def checks(report: Report, metrics: Metrics, path: Path) -> None:
    """What the verdict rests on."""
    estimators, bounds, entries, gaps = metrics["estimators"], report.findings.bounds, {}, None
    if bounds:
        gaps = (bounds.upper.log_likelihood - bounds.lower.log_likelihood).cpu().numpy()
        entries["bounds:\nupper - lower"] = estimators["bounds"]
    diagnostics = estimators["annealed"]["diagnostics"] if "annealed" in estimators else {}
    if diagnostics:
        entries["start:\nq - prior"] = diagnostics["posterior_start_minus_prior_start"]
        entries["temperatures:\nT - T / 2"] = diagnostics["temperatures_minus_half"]
    checked = {label: (entry["mean"], entry["standard_error"]) for label, entry in entries.items()}
    acceptance = diagnostics.get("acceptance", [])
    differences_and_acceptance(gaps, checked, metrics["verdict"]["tolerance"], acceptance, path)


def extremes(report: Report, schema: Schema, test: Array, path: Path) -> None:
    """The test rows that are least likely, and those that are most."""
    examples, order = report.examples, report.comparable.argsort(kind="stable")
    n = min(EXTREMES, len(order) // 2)
    places = np.stack([order[:n], order[len(order) - n :]])
    if schema.shape:
        raw = schema.to_raw(test)
        images = ImageGrid(schema.shape, schema.units, (float(np.nanmin(raw)), float(np.nanmax(raw))))
        extreme_images(images, raw[places], [examples["log_likelihood"].to_numpy()[row] for row in places], path)
        return
    quantity = "given_rest" if f"given_rest_{schema.names[0]}" in examples else "reconstruction"
    parts = np.where(np.isnan(test), np.nan, examples[[f"{quantity}_{name}" for name in schema.names]].to_numpy())
    relative, rows = parts - pd.DataFrame(parts).median().to_numpy(), places.reshape(-1)
    labels = [f"row {examples['index'][i] + 1}: {examples['log_likelihood'][i]:.1f}" for i in rows]
    extreme_rows(relative[rows], schema.table(test[rows]), labels, path)


def _elbo(metrics: Metrics) -> dict[str, float]:
    return {"mean": metrics["elbo"], "standard_error": metrics["standard_errors"]["elbo"]}


def _unit(metrics: Metrics) -> str:
    return nats(metrics["log_likelihood"].get("given"))
