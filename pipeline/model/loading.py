"""A model that was trained: loaded for its data, with the checks of new rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import MODELS
from pipeline.tables.schema import Schema
from pipeline.tables.statistics import Array
from vae.errors import ModelFileError
from vae.likelihoods import Likelihood
from vae.model.encoding import Input
from vae.model.latent_model import LatentModel


def load_model(schema: Schema, folder: Path = MODELS) -> LatentModel:
    """The model in a folder, for data of this schema.

    Raises:
        InputError: If its files are missing or damaged, or it was trained on data of another schema.
    """
    try:
        vae = LatentModel.load(folder)
    except ModelFileError as error:
        raise InputError(f"{error}, by `dvc repro -f train` or `dvc checkout models`") from error
    columns = ["real" if column.is_density else "discrete" for column in schema.columns]
    likelihoods = [vae.generative.likelihood.of(d) for d in range(vae.card.data_dim)]
    modelled = ["discrete" if likelihood.measure == "probability" else "real" for likelihood in likelihoods]
    gaps = any(column.missing for column in vae.card.inputs or ())
    if modelled != columns or vae.card.inputs != inputs(schema, gaps=gaps) or (schema.has_missing and not gaps):
        raise InputError(
            f"{folder} holds a model of {_counted(modelled)}, but the prepared data has {_counted(columns)}"
            + ("" if modelled != columns else ", of other scales or classes")
            + "; train again with `dvc repro`"
        )
    return vae


def _counted(kinds: list[str]) -> str:
    return " and ".join(f"{kinds.count(kind)} {kind} columns" for kind in ("real", "discrete") if kind in kinds)


def inputs(schema: Schema, *, gaps: bool) -> list[Input] | None:
    """How the columns go into the inference network: as they are, if they are plain; otherwise on a common scale.

    Args:
        schema: What the columns are.
        gaps: Whether values are missing or hidden; each column then says whether its value is there.
    """
    if schema.is_plain and not gaps:
        return None
    return [
        Input(classes=len(column.categories or ()), missing=gaps)
        if column.kind == "categorical"
        else Input(shift=column.centre, scale=column.spread, log=column.kind == "count", missing=gaps)
        for column in schema.columns
    ]


def outside(likelihood: Likelihood, y: Array) -> Iterator[tuple[int, int, str]]:
    """Row, column and support of the first value of each column of y (N, D) that the likelihood is not for."""
    for d in range(y.shape[1]):
        support = likelihood.of(d).support
        for row in np.flatnonzero(~(support.contains(y[:, d]) | np.isnan(y[:, d])))[:1]:
            yield int(row), d, support.description


def check_support(likelihood: Likelihood, schema: Schema, y: Array, first: int) -> None:
    """Refuse rows y (N, D), of which the first is row ``first`` of a file, that a model's likelihood is not for.

    Raises:
        InputError: Naming column, row and value.
    """
    for row, d, support in outside(likelihood, y):
        raise InputError(
            f"column {schema.names[d]!r}, row {first + row + 1}: the model's likelihood needs values that are each {support}, "
            f"and this one, as prepared, is {y[row, d]:g}; leave the row out"
        )
