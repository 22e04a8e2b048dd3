"""Fit the VAE on the training rows and keep the epoch with the best validation bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from pipeline.base.compute import use_threads
from pipeline.base.environment import is_first_process
from pipeline.base.files import MODELS, write_json
from pipeline.figures.curves import learning_curves
from pipeline.figures.latent_usage import latent_usage
from pipeline.model.building import build, hidden_share
from pipeline.params.train import TrainParams
from pipeline.record.saved import Saved
from pipeline.stages.job import Job, running
from pipeline.tables.labels import STILL_IMPROVING, condition, nats, still_improving
from pipeline.tables.schema import Schema, load_probabilities, load_schema, load_split
from pipeline.tracking.view import Silent, View
from vae import VAE
from vae.training.collapse import usage_lines
from vae.training.diagnosis import latest_row
from vae.training.fit import epoch_row
from vae.training.totals import QUANTITIES

ROWS = 2**16  # at a time


def main() -> None:
    """Run the stage."""
    with running("train", TrainParams) as job:
        schema = load_schema()
        use_threads(job.params.threads)
        vae = build(job.params, schema, job.source)
        probabilities = load_probabilities()
        y = load_split("train") if probabilities is None else probabilities
        vae.fit(
            y,
            validation=load_split("valid"),
            log_jacobian=(_mean_log_jacobian(schema, "train"), _mean_log_jacobian(schema, "valid")),
            callbacks=[Live(job.view, len(y))],
            snapshots=Snapshots(job.saved),
            seed=job.params.seed,
            binarize=probabilities is not None,
            **job.params.train.model_dump(exclude={"objective"}) | {"hide": hidden_share(job.params, schema)},
        )
        if is_first_process():
            _write(vae, schema, job)


class Live(Callback):
    """Shows each epoch as it ends, and how many of the training rows it took through in a second.

    Args:
        view: The MLflow run.
        rows: Training rows.
    """

    def __init__(self, view: View | Silent, rows: int) -> None:
        self._view, self._rows = view, rows
        self._began = 0.0

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:  # the start of an epoch is not called where a fit goes on
            self._began = time.perf_counter()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rate = self._rows / (time.perf_counter() - self._began)
        self._view.log({"epoch": trainer.current_epoch, "train_examples_per_second": rate})

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._view.log(epoch_row(trainer))
        self._view.log(latest_row(trainer))


class Snapshots:
    """The saved state of the training, as `vae.training.resume.Snapshots`."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved
        self.due = saved.due

    def load(self, check: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
        """The newest state that is intact and this model's."""
        state = self._saved.load("training", check)
        if state is not None and is_first_process():
            print(f"going on after epoch {state['epoch']} of an earlier start", flush=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state."""
        self._saved.save("training", state)


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
    if still_improving(metrics, vae.training_settings.max_epochs):
        print(STILL_IMPROVING)
