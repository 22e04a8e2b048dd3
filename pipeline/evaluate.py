"""Stage 3, evaluate: the held-out log-likelihood of the VAE and of its baselines, on the test rows.

Writes ``results/evaluate/``: metrics.json, examples.parquet (a row per test example), likelihoods.png.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline import tracking
from pipeline.baselines import Baseline, fit_baselines
from pipeline.compute import use_threads
from pipeline.errors import InputError
from pipeline.figures.likelihoods import likelihood_comparison
from pipeline.files import RESULTS, complete, write_json
from pipeline.labels import baseline_label
from pipeline.models import load_model
from pipeline.params import Evaluate, Params, load_params
from pipeline.schema import Schema, load_index, load_schema, load_split
from pipeline.stage import run
from vae import VAE
from vae.evidence import ESTIMATORS, evidence_lower_bound

REPORTED = "importance"


def main() -> None:
    """Run the stage."""
    params, schema = load_params(), load_schema()
    use_threads(params.threads)
    vae = load_model(schema)
    with threadpool_limits(params.threads), tracking.stage("evaluate", params):  # scikit-learn's threads beside torch's
        baselines = _baselines(params, schema)
        examples = score(vae, schema, params)
        for baseline in baselines:
            examples[baseline.name] = baseline.density.score_samples(load_split("test")) + schema.log_jacobian
        metrics = summarise(examples, baselines, params.evaluate, schema)
        with complete(RESULTS / "evaluate") as folder:
            write_json(folder / "metrics.json", metrics)
            examples.to_parquet(folder / "examples.parquet", index=False)
            _figure(examples, metrics, folder)
        _report(metrics)


def score(vae: VAE, schema: Schema, params: Params) -> pd.DataFrame:
    """A row per test example: its row number in the raw file, and everything that the VAE says of it, in nats of raw data."""
    y = vae.as_rows(load_split("test"))
    bound = evidence_lower_bound(vae, y, params.evaluate.elbo_samples, seed=params.seed)
    columns: dict[str, NDArray[Any]] = {
        "index": load_index("test"),
        "elbo": bound.elbo.numpy() + schema.log_jacobian,
        "reconstruction": bound.reconstruction.numpy() + schema.log_jacobian,
        "kl": bound.kl.numpy(),
    }
    for name, estimator in ESTIMATORS.items():
        estimate = estimator(vae, y, params.evaluate.samples, seed=params.seed)
        columns[f"log_likelihood_{name}"] = estimate.log_likelihood.numpy() + schema.log_jacobian
        columns[f"effective_sample_size_{name}"] = estimate.effective_sample_size.numpy()
    columns["log_likelihood"] = columns[f"log_likelihood_{REPORTED}"]
    examples = pd.DataFrame(columns)
    bad = ~np.isfinite(examples.to_numpy()).all(axis=1)
    if bad.any():
        row = int(examples.loc[bad, "index"].iloc[0])
        raise InputError(
            f"row {row + 1} of the raw file, a test row, has no finite log-likelihood ({int(bad.sum())} such rows); look for "
            "extreme values in it"
        )
    return examples


def summarise(examples: pd.DataFrame, baselines: list[Baseline], settings: Evaluate, schema: Schema) -> dict[str, Any]:
    """The content of metrics.json; means over test examples, each with its standard error over examples."""
    samples = {"samples": settings.samples}
    estimators = {name: samples | _mean(examples[f"log_likelihood_{name}"]) for name in ESTIMATORS}
    for name, entry in estimators.items():
        effective = examples[f"effective_sample_size_{name}"]
        entry |= {
            "median_effective_sample_size": float(effective.median()),
            "least_effective_sample_size": float(effective.min()),
        }
    log_likelihood = _mean(examples["log_likelihood"])
    least = examples.iloc[int(examples["log_likelihood"].argmin())]
    parts = {name: _mean(examples[name]) for name in ("elbo", "reconstruction", "kl")}
    return {
        "examples": len(examples),
        **{name: part["mean"] for name, part in parts.items()},
        "standard_errors": {name: part["standard_error"] for name, part in parts.items()},
        "bits_per_dimension": schema.bits_per_dimension(log_likelihood["mean"]),
        "least_likely": {"index": int(least["index"]), "log_likelihood": float(least["log_likelihood"])},
        "log_likelihood": {"estimator": REPORTED} | samples | log_likelihood,
        "estimators": estimators,
        "baselines": {
            baseline.name: _mean(examples[baseline.name])
            | {
                "components": baseline.components,
                "vae_minus_baseline": _mean(examples["log_likelihood"] - examples[baseline.name]),
            }
            for baseline in baselines
        },
    }


def _mean(values: pd.Series) -> dict[str, Any]:
    return {"mean": float(values.mean()), "standard_error": float(values.std() / math.sqrt(len(values)))}


def _baselines(params: Params, schema: Schema) -> list[Baseline]:
    return fit_baselines(
        np.asarray(load_split("train"), dtype=np.float64),
        np.asarray(load_split("valid"), dtype=np.float64),
        binary=schema.value_type == "binary",
        components=params.evaluate.mixture_components,
        seed=params.seed,
    )


def _figure(examples: pd.DataFrame, metrics: dict[str, Any], folder: Any) -> None:
    entries = {
        f"VAE, importance sampling, S = {metrics['log_likelihood']['samples']:,}": metrics["estimators"]["importance"],
        f"VAE, prior sampling, S = {metrics['log_likelihood']['samples']:,}": metrics["estimators"]["prior"],
        "VAE, ELBO": {"mean": metrics["elbo"], "standard_error": metrics["standard_errors"]["elbo"]},
    }
    for name, entry in metrics["baselines"].items():
        entries[baseline_label(name, entry)] = entry
    rows = {label: (entry["mean"], entry["standard_error"]) for label, entry in entries.items()}
    baselines = metrics["baselines"].items()
    differences = pd.DataFrame(
        {baseline_label(name, entry): examples["log_likelihood"] - examples[name] for name, entry in baselines}
    )
    likelihood_comparison(rows, differences, folder / "likelihoods.png")


def _report(metrics: dict[str, Any]) -> None:
    reported = metrics["log_likelihood"]
    print(
        f"evaluated {metrics['examples']} test rows: log-likelihood {reported['mean']:.2f} ± {reported['standard_error']:.2f} "
        "nats per example"
    )


if __name__ == "__main__":
    sys.exit(run("evaluate", __doc__, main))
