"""The held-out log-likelihood of the VAE and of its baselines, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import TaskProgressColumn
from threadpoolctl import threadpool_limits

from pipeline.base.bar import progress_bar
from pipeline.base.files import write_json
from pipeline.cluster.connection import scheduler_address
from pipeline.evaluation.baselines import fit_baselines, fitted_rows
from pipeline.evaluation.computations import Work
from pipeline.evaluation.estimation import Estimation
from pipeline.evaluation.hidden_values import fill_by_workers, imputing, quality
from pipeline.evaluation.metrics import headline, metrics_of
from pipeline.evaluation.per_value import value_parts_by_workers
from pipeline.evaluation.pieces import Pieces
from pipeline.evaluation.report import Report
from pipeline.evaluation.side_tables import importance_ladder, latent_dimensions
from pipeline.evaluation.workers import Workers, workers_here
from pipeline.figures import evaluated
from pipeline.model.loading import load_model
from pipeline.params.evaluate import EvaluateParams
from pipeline.stages.job import Job, running
from pipeline.tables.labels import condition
from pipeline.tables.row_files import RowFile
from pipeline.tables.schema import SPLITS, Schema, load_groups, load_index, load_schema, load_split
from pipeline.tables.slices import by_slices
from pipeline.tables.statistics import Array
from vae.model.latent_model import LatentModel

CSV: dict[str, Any] = {"index": False, "lineterminator": "\n"}


def main() -> None:
    """Estimate log p(y) of the test rows, compare it with baselines, judge it, and write what came out."""
    with running("evaluate", EvaluateParams) as job:
        schema = load_schema()
        vae = load_model(schema)
        count, cluster = workers_here(job.params.workers), scheduler_address(job.cluster)
        job.view.tag("workers", cluster or count)
        with threadpool_limits(1), Workers(count, vae, cluster) as workers:  # scikit-learn's threads too
            metrics = _evaluate(job, schema, vae, workers)
    print(*headline(metrics), sep="\n")


def _evaluate(job: Job[EvaluateParams], schema: Schema, vae: LatentModel, workers: Workers) -> dict[str, Any]:
    """Write the files; the content of metrics.json."""
    rows, index = {split: load_split(split) for split in SPLITS}, load_index("test")
    settings, seed = job.params.evaluate.imputation, job.params.seed
    with progress_bar(TaskProgressColumn()) as bar, Pieces(job.saved) as pieces:
        work = Work(bar, pieces, workers)
        report, metrics = _judged(job.params, schema, vae, rows, index, work)
        if schema.has_missing:
            impute = imputing(work, vae, settings, seed)
            metrics["imputation"] = quality(impute, schema, fitted_rows(rows["train"], seed), rows["test"], settings, seed)
        with job.outputs() as (folder,):
            write_json(folder / "metrics.json", metrics)
            _write_examples(folder / "examples.parquet", report, _value_parts(job.params, schema, vae, rows["test"], work))
            importance_ladder(report).to_csv(folder / "ladder.csv", **CSV)
            latent_dimensions(report.findings.latents).to_csv(folder / "latents.csv", **CSV)
            filled = fill_by_workers(work, vae, rows["test"], schema, index, settings=settings, seed=seed)
            for number, table in enumerate(filled):
                table.to_csv(folder / "imputed.csv", mode="a", header=not number, **CSV)
            evaluated.draw(report, metrics, schema, rows["test"], folder)
    return metrics


def _judged(
    params: EvaluateParams,
    schema: Schema,
    vae: LatentModel,
    rows: Mapping[str, Array],
    index: NDArray[np.integer],
    work: Work,
) -> tuple[Report, dict[str, Any]]:
    """What is known of the test rows, beside baselines, and the content of metrics.json."""
    settings, seed, test = params.evaluate, params.seed, rows["test"]
    groups = {split: load_groups(split) for split in ("train", "test")}
    totals = vae.generative.likelihood.totals(len(schema.columns))
    findings = Estimation(vae, params, schema, rows, groups, work).run()
    report = Report(findings, index, by_slices(schema.log_missing, test), settings.tolerance)
    train, valid = (fitted_rows(rows[split], seed) for split in ("train", "valid"))
    baselines = fit_baselines(train, valid, schema, components=settings.mixture_components, totals=totals, seed=seed)
    log_jacobian = by_slices(schema.log_jacobian, test)
    report.add({base.name: by_slices(base.density.score_samples, test) + log_jacobian for base in baselines})
    return report, metrics_of(report, baselines, schema, condition(totals, schema.names))


def _value_parts(
    params: EvaluateParams, schema: Schema, vae: LatentModel, test: Array, work: Work
) -> Iterator[dict[str, Array]]:
    """What each value of a table has to do with log p of its row, some rows at a time; nothing of images."""
    if schema.shape is not None:
        return iter([{}])
    samples = params.evaluate.imputation.samples if vae.inference.may_miss(vae.as_rows(test[:1])).all() else None
    parts: dict[str, Any] = {"elbo_samples": params.evaluate.elbo_samples, "samples": samples, "seed": params.seed}
    return value_parts_by_workers(work, vae, test, schema=schema, **parts)


def _write_examples(path: Path, report: Report, parts: Iterator[dict[str, Array]]) -> None:
    """The table of the test rows, with the parts of their values as these come."""
    left = report.examples
    with RowFile(path) as file:
        for columns in parts:
            count = len(next(iter(columns.values()), left))
            now, left = left[:count].reset_index(drop=True), left[count:]
            file.write(pd.concat([now, pd.DataFrame(columns, index=now.index)], axis=1))
