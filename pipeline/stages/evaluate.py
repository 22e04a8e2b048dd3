"""The held-out log-likelihood of the VAE and of its baselines, and how far to trust it."""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipeline.base.compute import use_threads
from pipeline.base.files import write_json
from pipeline.evaluation.baselines import fit_baselines
from pipeline.evaluation.estimation import Estimation
from pipeline.evaluation.hidden_values import fill, quality
from pipeline.evaluation.metrics import headline, metrics_of
from pipeline.evaluation.per_value import value_parts
from pipeline.evaluation.pieces import Pieces
from pipeline.evaluation.report import Report
from pipeline.evaluation.side_tables import importance_ladder, latent_dimensions
from pipeline.figures import evaluated
from pipeline.model.loading import load_model
from pipeline.params.evaluate import EvaluateParams
from pipeline.stages.job import Job, running
from pipeline.tables.labels import condition
from pipeline.tables.schema import SPLITS, Schema, load_groups, load_index, load_schema, load_split
from pipeline.tables.statistics import Array


def main() -> None:
    """Estimate log p(y) of the test rows, compare it with baselines, judge it, and write what came out."""
    with running("evaluate", EvaluateParams) as job:
        schema = load_schema()
        use_threads(job.params.threads)
        with threadpool_limits(job.params.threads):  # scikit-learn's threads beside torch's
            metrics = _evaluate(job, schema)
    print(*headline(metrics), sep="\n")


def _evaluate(job: Job[EvaluateParams], schema: Schema) -> dict[str, Any]:
    """Write the files; the content of metrics.json."""
    settings, seed, vae = job.params.evaluate, job.params.seed, load_model(schema)
    rows = {split: load_split(split) for split in SPLITS}
    groups = {split: load_groups(split) for split in ("train", "test")}
    test, index, totals = np.array(rows["test"]), load_index("test"), vae.generative.likelihood.totals(len(schema.columns))

    estimation = Estimation(vae, job.params, schema, rows, groups, Pieces(job.saved))
    baselines = fit_baselines(
        rows["train"], rows["valid"], schema, components=settings.mixture_components, totals=totals, seed=seed
    )
    report = Report(estimation.run(), index, schema.log_missing(test), settings.tolerance)
    columns: dict[str, Array] = {base.name: base.density.score_samples(test) + schema.log_jacobian(test) for base in baselines}
    if schema.shape is None:
        samples = settings.imputation.samples if vae.inference.may_miss(vae.as_rows(test)).all() else None
        columns |= value_parts(vae, schema, test, elbo_samples=settings.elbo_samples, samples=samples, seed=seed, bar=True)
    report.add(columns)
    metrics = metrics_of(report, baselines, schema, condition(totals, schema.names))
    if schema.has_missing:
        metrics["imputation"] = quality(vae, schema, np.array(rows["train"]), test, settings.imputation, seed)
    filled = fill(vae, schema, test, index, settings.imputation, seed)

    with job.outputs() as (folder,):
        write_json(folder / "metrics.json", metrics)
        report.examples.to_parquet(folder / "examples.parquet", index=False)
        importance_ladder(report).to_csv(folder / "ladder.csv", index=False, lineterminator="\n")
        latent_dimensions(report.findings.latents).to_csv(folder / "latents.csv", index=False, lineterminator="\n")
        filled.to_csv(folder / "imputed.csv", index=False, lineterminator="\n")
        evaluated.draw(report, metrics, schema, test, folder)
    return metrics
