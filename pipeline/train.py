"""Stage 2, train: fit the VAE on the training rows and keep the epoch with the best validation ELBO.

Writes ``models/``: model.safetensors, model.json; ``results/train/``: history.csv, metrics.json, curves.png.
"""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd

from pipeline import tracking
from pipeline.compute import use_threads
from pipeline.errors import InputError
from pipeline.figures.curves import learning_curves
from pipeline.files import MODELS, RESULTS, complete, write_json
from pipeline.labels import STILL_IMPROVING, still_improving
from pipeline.params import Params, load_params
from pipeline.schema import Schema, load_schema, load_split
from pipeline.stage import run
from vae import VAE, objectives
from vae.registry import OBJECTIVES
from vae.training import QUANTITIES


def main() -> None:
    """Run the stage."""
    params, schema = load_params(), load_schema()
    use_threads(params.threads)
    vae = build(params, schema)
    with tracking.stage("train", params) as view:
        vae.fit(
            load_split("train"),
            validation=load_split("valid"),
            log_jacobian=(schema.log_jacobian, schema.log_jacobian),
            callbacks=[tracking.LiveCurves(view)],
            seed=params.seed,
            **params.train.model_dump(exclude={"objective"}),
        )
        if vae.trainer.is_global_zero:
            _write(vae)


def build(params: Params, schema: Schema) -> VAE:
    """The VAE that params describe, for data of this schema.

    Raises:
        InputError: If the likelihood is not one of such data.
    """
    objective = params.train.objective.model_dump()
    entry = OBJECTIVES[objective.pop("name")]
    vae = VAE(
        params.model.generative.model_dump(),
        params.model.inference.model_dump(),
        data_dim=len(schema.columns),
        latent_dim=params.model.latent_dim,
        likelihood=params.model.likelihood.model_dump(),
        objective=entry.build(objectives, **objective),
        seed=params.seed,
    )
    support = vae.generative.likelihood.support
    if support != schema.support:
        raise InputError(_MISMATCH[support].format(name=params.model.likelihood.name, path=params.data.path))
    return vae


_MISMATCH = {
    "binary": "model.likelihood.name: {name} needs values in {{0, 1}}, but {path} has others; set data.binarize to a "
    "threshold, or choose a Gaussian likelihood",
    "real": "model.likelihood.name: {name} is a density of real numbers, which is unbounded for the values 0 and 1 of {path}; "
    "choose bernoulli",
}


def _write(vae: VAE) -> None:
    history = pd.DataFrame(vae.history.rows)
    best = history.iloc[int(history["valid_elbo"].argmax())]
    metrics: dict[str, Any] = {"best_epoch": int(best["epoch"]), "epochs_run": len(history)}
    for split in ("train", "valid"):
        metrics[split] = {name: float(best[f"{split}_{name}"]) for name in QUANTITIES}
    with complete(RESULTS / "train") as folder:
        history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
        write_json(folder / "metrics.json", metrics)
        learning_curves(history, metrics["best_epoch"], folder / "curves.png")
        with complete(MODELS) as models:
            vae.save(models)
    print(
        f"trained {metrics['epochs_run']} epochs; kept epoch {metrics['best_epoch']}, "
        f"validation ELBO {metrics['valid']['elbo']:.2f} nats per example"
    )
    if still_improving(metrics, vae.training_settings.max_epochs):
        print(STILL_IMPROVING)


if __name__ == "__main__":
    sys.exit(run("train", __doc__, main))
