"""The held-out log-likelihood of the VAE and of its baselines, and how far to trust it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import TaskProgressColumn
from threadpoolctl import threadpool_limits

from pipeline.base.bar import progress_bar
from pipeline.base.files import write_json
from pipeline.cluster.connection import scheduler_address
from pipeline.evaluation.baselines import fit_baselines
from pipeline.evaluation.computations import Work
from pipeline.evaluation.estimation import Estimation
from pipeline.evaluation.hidden_values import fill, imputing, quality
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
from pipeline.tables.schema import SPLITS, Schema, load_groups, load_index, load_schema, load_split
from pipeline.tables.statistics import Array
from vae.model.latent_model import LatentModel


def main() -> None:
    """Estimate log p(y) of the test rows, compare it with baselines, judge it, and write what came out."""
    with running("evaluate", EvaluateParams) as job:
        schema = load_schema()
        vae = load_model(schema)
        with (
            threadpool_limits(1),  # scikit-learn's threads too
            Workers(workers_here(job.params.workers), vae, scheduler_address(job.cluster)) as workers,
        ):
            metrics = _evaluate(job, schema, vae, workers)
    print(*headline(metrics), sep="\n")


def _evaluate(job: Job[EvaluateParams], schema: Schema, vae: LatentModel, workers: Workers) -> dict[str, Any]:
    """Write the files; the content of metrics.json."""
    test, index = np.array(load_split("test")), load_index("test")
    with progress_bar(TaskProgressColumn()) as bar, Pieces(job.saved) as pieces:
        work = Work(bar, pieces, workers)
        report, metrics = _judged(job.params, schema, vae, test, index, work)
        impute = imputing(work, vae, job.params.evaluate.imputation, job.params.seed)
        if schema.has_missing:
            train, settings = np.array(load_split("train")), job.params.evaluate.imputation
            metrics["imputation"] = quality(impute, schema, train, test, settings, job.params.seed)
        filled = fill(impute, schema, test, index)
    with job.outputs() as (folder,):
        write_json(folder / "metrics.json", metrics)
        report.examples.to_parquet(folder / "examples.parquet", index=False)
        importance_ladder(report).to_csv(folder / "ladder.csv", index=False, lineterminator="\n")
        latent_dimensions(report.findings.latents).to_csv(folder / "latents.csv", index=False, lineterminator="\n")
        filled.to_csv(folder / "imputed.csv", index=False, lineterminator="\n")
        evaluated.draw(report, metrics, schema, test, folder)
    return metrics


def _judged(
    params: EvaluateParams, schema: Schema, vae: LatentModel, test: Array, index: NDArray[np.integer], work: Work
) -> tuple[Report, dict[str, Any]]:
    """What is known of the test rows, beside baselines, and the content of metrics.json."""
    settings, seed = params.evaluate, params.seed
    rows = {split: load_split(split) for split in SPLITS}
    groups = {split: load_groups(split) for split in ("train", "test")}
    totals = vae.generative.likelihood.totals(len(schema.columns))
    findings = Estimation(vae, params, schema, rows, groups, work).run()
    report = Report(findings, index, schema.log_missing(test), settings.tolerance)
    baselines = fit_baselines(
        rows["train"], rows["valid"], schema, components=settings.mixture_components, totals=totals, seed=seed
    )
    columns: dict[str, Array] = {base.name: base.density.score_samples(test) + schema.log_jacobian(test) for base in baselines}
    if schema.shape is None:
        samples = settings.imputation.samples if vae.inference.may_miss(vae.as_rows(test)).all() else None
        parts: dict[str, Any] = {"elbo_samples": settings.elbo_samples, "samples": samples, "seed": seed, "schema": schema}
        columns |= value_parts_by_workers(work, vae, test, **parts)
    report.add(columns)
    return report, metrics_of(report, baselines, schema, condition(totals, schema.names))
