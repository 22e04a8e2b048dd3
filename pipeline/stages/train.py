"""Fit the VAE on the training rows and keep the epoch with the best validation bound."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pipeline.base.compute import use_threads
from pipeline.base.environment import is_first_process
from pipeline.base.files import MODELS, write_json
from pipeline.figures.curves import learning_curves
from pipeline.figures.latent_usage import latent_usage
from pipeline.model.building import build, hidden_share, in_words_of_params
from pipeline.model.fitting import EpochProgress, Live, SavedStates
from pipeline.params.train import TrainParams
from pipeline.stages.job import Job, running
from pipeline.tables.labels import STILL_IMPROVING, condition, nats, still_improving
from pipeline.tables.schema import Schema, load_probabilities, load_schema, load_split
from vae import VAE
from vae.training.collapse import usage_lines
from vae.training.totals import QUANTITIES

ROWS = 2**16  # at a time


def main() -> None:
    """Fit the VAE on the training rows, keep its best epoch, and write it with its learning curves."""
    with running("train", TrainParams) as job, in_words_of_params():
        schema = load_schema()
        use_threads(job.params.threads or 1)
        vae = build(job.params, schema, job.source)
        probabilities = load_probabilities()
        y = load_split("train") if probabilities is None else probabilities
        vae.fit(
            y,
            validation=load_split("valid"),
            log_jacobian=(_mean_log_jacobian(schema, "train"), _mean_log_jacobian(schema, "valid")),
            callbacks=[Live(job.view, len(y)), EpochProgress()],
            snapshots=SavedStates(job.saved),
            seed=job.params.seed,
            threads=job.params.threads,
            binarize=probabilities is not None,
            progress=False,
            **job.params.train.model_dump(exclude={"objective"}) | {"hide": hidden_share(job.params, schema)},
        )
        if is_first_process():
            _write(vae, schema, job)


def _mean_log_jacobian(schema: Schema, split: str) -> float:
    y = load_split(split)
    parts = [schema.log_jacobian(y[first : first + ROWS]).sum() for first in range(0, len(y), ROWS)]
    return float(sum(parts) / len(y))


def _write(vae: VAE, schema: Schema, job: Job[TrainParams]) -> None:
    history, latents = pd.DataFrame(vae.history.rows), pd.DataFrame(vae.history.latents)
    best = history.iloc[int(history["valid_bound"].argmax())]
    metrics: dict[str, Any] = {"best_epoch": int(best["epoch"]), "epochs_run": len(history)}
    metrics["active_units"] = int(best["valid_active_units"])
    for split in ("train", "valid"):
        metrics[split] = {name: float(best[f"{split}_{name}"]) for name in QUANTITIES}
    unit = nats(condition(vae.generative.likelihood.totals(len(schema.columns)), schema.names))
    with job.outputs(MODELS) as (folder, models):
        history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
        latents.to_csv(folder / "latents.csv", index=False, lineterminator="\n")
        write_json(folder / "metrics.json", metrics)
        learning_curves(history, metrics["best_epoch"], folder / "curves.png", unit)
        latent_usage(latents, metrics["best_epoch"], folder / "latents.png")
        vae.save(models)
        schema.save(models)
    print(
        f"trained {metrics['epochs_run']} epochs; kept epoch {metrics['best_epoch']}, "
        f"validation ELBO {metrics['valid']['elbo']:.2f} {unit}"
    )
    print("\n".join(usage_lines(metrics["active_units"], vae.card.latent_size)))
    if still_improving(metrics, job.params.train.max_epochs):
        print(STILL_IMPROVING)
