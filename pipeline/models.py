"""The model: built for the data, refused where its likelihood is not one of such data, and loaded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.files import MODELS
from pipeline.kinds import Kind
from pipeline.moments import Array
from pipeline.params import Params
from pipeline.schema import SPLITS, Column, Schema, load_index, load_split
from pipeline.sections import Model
from vae import VAE, objectives
from vae.encoding import Input
from vae.likelihoods import Likelihood
from vae.registry import LIKELIHOODS, OBJECTIVES

FITTING: dict[Kind, str] = {
    "continuous": "gaussian_per_dimension or student_t",
    "count": "negative_binomial, poisson or binomial",
    "binary": "bernoulli",
    "categorical": "categorical",
    "ordinal": "ordinal or categorical",
}
ROWS = 2**16  # that are checked at a time
HIDDEN = 0.5  # share of the rows of a training step with hidden values, where values are missing
OF_CATEGORIES = ("categorical", "bernoulli")  # likelihoods that do not take the positions of categories for numbers


def build(params: Params, schema: Schema) -> VAE:
    """The VAE that params describe, for data of this schema.

    Raises:
        InputError: If the likelihood is not one of such data.
    """
    gaps = schema.has_missing or hidden_share(params, schema) > 0
    _refuse_library(params.model, gaps=gaps)
    _refuse_convolutions(params.model, schema, gaps=gaps)
    objective = params.train.objective.model_dump()
    entry = OBJECTIVES[objective.pop("name")]
    vae = VAE(
        params.model.generative.model_dump(),
        params.model.inference.model_dump(),
        data_dim=len(schema.columns),
        latent_dim=params.model.latent_dim,
        likelihood=likelihood(params.model, schema, gaps=gaps),
        inputs=inputs(schema, gaps=gaps),
        shape=schema.shape,
        objective=entry.build(objectives, **objective),
        seed=params.seed,
    )
    _refuse_unsuitable(vae.generative.likelihood, schema, params)
    return vae


def _refuse_library(model: Model, *, gaps: bool) -> None:
    """A row's total, of which the other columns' means are shares, is not known where values are missing."""
    sections = [model.likelihood.model_dump()]
    sections += [section for section in sections[0].values() if isinstance(section, dict)]
    sections += sections[0].get("columns", {}).values()
    if gaps and any(section.get("library") for section in sections):
        raise InputError(
            "model.likelihood: library makes means shares of a row's total, which is not known where values are missing or "
            "hidden (train.hide); set library to null, or complete the rows"
        )


def _refuse_convolutions(model: Model, schema: Schema, *, gaps: bool) -> None:
    """Convolutions are for images, of which no pixel is missing or a category."""
    for name in ("generative", "inference"):
        if not getattr(model, name).channels:
            continue
        if schema.shape is None:
            raise InputError(f"model.{name}.channels: convolutions are for images; set data.shape, or channels to []")
        if gaps or "categorical" in schema.kinds or model.likelihood.name == "mixed":
            raise InputError(
                f"model.{name}.channels: convolutions are for complete images of one likelihood; set channels to [], or leave "
                "out train.hide, mixed and categories, and the images with missing pixels"
            )


def hidden_share(params: Params, schema: Schema) -> float:
    """``train.hide``; where it is left open, `HIDDEN` if values are missing."""
    return params.train.hide if params.train.hide is not None else HIDDEN * schema.has_missing


def likelihood(model: Model, schema: Schema, *, gaps: bool) -> dict[str, Any]:
    """Name and options of the likelihood, with what the data decides; one for each column unless a single one does for all.

    Raises:
        InputError: If a column is named that there is not.
    """
    options = model.likelihood.model_dump()
    if options["name"] != "mixed":
        each = [_of_column(options, column) for column in schema.columns]
        alike = all(other == each[0] for other in each)
        return each[0] if schema.is_plain and alike and not gaps else {"name": "mixed", "columns": each}
    named = options["columns"]
    if unknown := sorted(set(named) - set(schema.names)):
        raise InputError(f"model.likelihood.columns: no column {unknown[0]!r}; the columns are {', '.join(schema.names)}")
    chosen = (named.get(column.name) or options[column.kind] for column in schema.columns)
    return {"name": "mixed", "columns": [_of_column(of, column) for of, column in zip(chosen, schema.columns, strict=True)]}


def _of_column(options: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """With the number of levels, or of trials, that the column has where params leave it open."""
    levels = len(column.categories) if column.categories else int(column.range[1]) + 1
    found = {"levels": max(2, levels), "trials": max(1, levels - 1)}
    return {name: found.get(name) if value is None else value for name, value in options.items()}


def inputs(schema: Schema, *, gaps: bool) -> list[Input] | None:
    """How the columns go into the inference network: as they are, if they are plain; otherwise on a common scale.

    Args:
        schema: Of the data.
        gaps: Whether values are missing or hidden; each column then says whether its value is there.
    """
    return None if schema.is_plain and not gaps else [_input(column, missing=gaps) for column in schema.columns]


def _input(column: Column, *, missing: bool) -> Input:
    if column.kind == "categorical":
        return Input(classes=len(column.categories or ()), missing=missing)
    return Input(shift=column.centre, scale=column.spread, log=column.kind == "count", missing=missing)


def _refuse_unsuitable(likelihood: Likelihood, schema: Schema, params: Params) -> None:
    """Refuse densities of what are no real numbers, probabilities of what are, and values outside the support."""
    for d, column in enumerate(schema.columns):
        _refuse_measure(likelihood.of(d), column, params)
    for split in SPLITS:
        y = load_split(split)
        for first in range(0, len(y), ROWS):
            for row, d, support in outside(likelihood, np.asarray(y[first : first + ROWS])):
                column = schema.columns[d]
                raise InputError(
                    f"{_where(params, column)} needs values that are each {support}, but column {column.name!r} "
                    f"has {y[first + row, d]:g}, as prepared, in row {load_index(split)[first + row] + 1} of "
                    f"{params.data.path}; choose {FITTING[column.kind]}, or mend the transform in data"
                )


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


def _refuse_measure(likelihood: Likelihood, column: Column, params: Params) -> None:
    name = next(name for name, entry in LIKELIHOODS.items() if entry.class_name == type(likelihood).__name__)
    where, held = f"{_where(params, column)}: {name}", f"column {column.name!r} of {params.data.path}"
    if column.is_density and likelihood.measure == "probability":
        raise InputError(
            f"{where} needs values that are each {likelihood.support.description}, but {held} holds real numbers; choose "
            f"{FITTING['continuous']}, or, for bernoulli, set data.binarize to a threshold"
        )
    if not column.is_density and likelihood.measure != "probability":
        noise = f", set data.columns.{column.name} to {{dequantize: 1}}" if column.kind == "count" else ""
        raise InputError(
            f"{where} is a density of real numbers, which is unbounded for {held}, which is {column.kind}; choose "
            f"{FITTING[column.kind]}{noise}, or mixed, with a likelihood for each kind"
        )
    if column.kind == "categorical" and name not in OF_CATEGORIES:
        raise InputError(f"{where} takes the categories of {held} for numbers; choose {FITTING['categorical']}, or mixed")


def _where(params: Params, column: Column) -> str:
    if params.model.likelihood.name != "mixed":
        return "model.likelihood.name"
    named = column.name in params.model.likelihood.columns
    return f"model.likelihood.{f'columns.{column.name}' if named else column.kind}"


def load_model(schema: Schema, folder: Path = MODELS) -> VAE:
    """The model in a folder, for data of this schema.

    Raises:
        InputError: If it was trained on data of another schema.
        ModelFileError: If its files are missing or damaged.
    """
    vae = VAE.load(folder)
    columns = ["real" if column.is_density else "discrete" for column in schema.columns]
    of = vae.generative.likelihood.of
    modelled = ["discrete" if of(d).measure == "probability" else "real" for d in range(vae.card.data_dim)]
    gaps = any(of.missing for of in vae.card.inputs or ())
    if modelled != columns or vae.card.inputs != inputs(schema, gaps=gaps) or (schema.has_missing and not gaps):
        raise InputError(
            f"{folder} holds a model of {_counted(modelled)}, but the prepared data has {_counted(columns)}"
            + ("" if modelled != columns else ", of other scales or classes")
            + "; train again with `dvc repro`"
        )
    return vae


def _counted(kinds: list[str]) -> str:
    return " and ".join(f"{kinds.count(kind)} {kind} columns" for kind in ("real", "discrete") if kind in kinds)
