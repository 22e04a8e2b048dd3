"""The pictures of the evaluation, from its report and the content of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

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
    """Draw all of them to a folder, in which examples.parquet lies; ``test`` are the prepared test rows, memory-mapped."""
    comparison(report, metrics, folder / "likelihoods.png")
    ladder(report, metrics, folder / "ladder.png")
    checks(report, metrics, folder / "bounds.png")
    extremes(report, schema, test, folder)


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


def extremes(report: Report, schema: Schema, test: Array, folder: Path) -> None:
    """The test rows that are least likely, and those that are most."""
    examples, path = report.examples, folder / "extremes.png"
    order = report.comparable.argsort(kind="stable")
    n = min(EXTREMES, len(order) // 2)
    places = np.stack([order[:n], order[len(order) - n :]])
    if schema.shape:
        images = ImageGrid(schema.shape, schema.units, schema.limits(test))
        log_likelihoods = [examples["log_likelihood"].to_numpy()[row] for row in places]
        extreme_images(images, schema.to_raw(test[places]), log_likelihoods, path)
        return
    rows = places.reshape(-1)
    labels = [f"row {examples['index'][i] + 1}: {examples['log_likelihood'][i]:.1f}" for i in rows]
    extreme_rows(_above_median(folder / "examples.parquet", schema, test, rows), schema.table(test[rows]), labels, path)


def _above_median(path: Path, schema: Schema, test: Array, rows: NDArray[np.integer]) -> Array:
    """Log p of the values of some rows, minus that of the median value of their columns, which are read one by one, (n, D)."""
    file, columns = pq.ParquetFile(path), []
    quantity = "given_rest" if f"given_rest_{schema.names[0]}" in file.schema_arrow.names else "reconstruction"
    for d, name in enumerate(schema.names):
        parts = file.read([f"{quantity}_{name}"]).column(0).to_pandas().mask(np.isnan(test[:, d]))
        columns.append(parts[rows].to_numpy() - parts.median())
    return np.stack(columns, axis=1)


def _elbo(metrics: Metrics) -> dict[str, float]:
    return {"mean": metrics["elbo"], "standard_error": metrics["standard_errors"]["elbo"]}


def _unit(metrics: Metrics) -> str:
    return nats(metrics["log_likelihood"].get("given"))
