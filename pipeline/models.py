"""The trained model, checked against the data that it is asked about."""

from __future__ import annotations

from pipeline.errors import InputError
from pipeline.files import MODELS
from pipeline.schema import Schema
from vae import VAE


def load_model(schema: Schema) -> VAE:
    """The model in ``models/``.

    Raises:
        InputError: If it was trained on data of another schema.
        ModelFileError: If its files are missing or damaged.
    """
    vae = VAE.load(MODELS)
    columns, kind = len(schema.columns), "binary" if schema.value_type == "binary" else "real"
    modelled = "binary" if vae.generative.likelihood.measure == "probability" else "real"
    if (vae.card.data_dim, modelled) != (columns, kind):
        raise InputError(
            f"{MODELS} holds a model of {vae.card.data_dim} {modelled} columns, but the prepared data has {columns} {kind} "
            "ones; train again with `dvc repro`"
        )
    return vae
