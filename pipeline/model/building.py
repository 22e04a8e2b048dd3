"""The model that params describe, built for the data, and refused where its likelihood is not one of such data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import InputError
from pipeline.base.files import PREPARED
from pipeline.model.loading import inputs, outside
from pipeline.params.model import Model
from pipeline.params.train import TrainParams
from pipeline.tables.kinds import Kind
from pipeline.tables.schema import SPLITS, Column, Schema, load_index, load_split
from vae import VAE, objectives
from vae.errors import AcceleratorError, DivergenceError, OptionError
from vae.likelihoods import Likelihood
from vae.options.declaration import build as build_named
from vae.options.registry import LIKELIHOODS
from vae.settings import OBJECTIVES

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


def build(params: TrainParams, schema: Schema, source: str = "the data", folder: Path = PREPARED) -> VAE:
    """The VAE that params describe, for data of this schema, prepared from the file ``source`` into a folder.

    Raises:
        InputError: If the likelihood is not one of such data.
    """
    gaps = schema.has_missing or hidden_share(params, schema) > 0
    _refuse_library(params.model, schema)
    _refuse_convolutions(params.model, schema, gaps=gaps)
    vae = _model(params, schema, gaps=gaps)
    _refuse_unsuitable(vae.generative.likelihood, schema, params, source, folder)
    return vae


@contextmanager
def in_words_of_params() -> Iterator[None]:
    """Say of what a fit raises by which keys of params.yaml it can be mended.

    Raises:
        InputError: For what the user can mend.
    """
    try:
        yield
    except DivergenceError as error:
        raise InputError(f"{error}: see data.scale, train.learning_rate and train.gradient_clip_norm") from error
    except AcceleratorError as error:
        raise InputError(f"{error} In params.yaml that is train.accelerator") from error


def _model(params: TrainParams, schema: Schema, *, gaps: bool) -> VAE:
    model = params.model
    named = likelihood(model, schema, gaps=gaps)
    try:
        return VAE(
            model.generative.model_dump(),
            model.inference.model_dump(),
            data_dim=len(schema.columns),
            latent_dim=model.latent_dim,
            likelihood=named,
            inputs=inputs(schema, gaps=gaps),
            shape=schema.shape,
            prior=model.prior.model_dump(),
            posterior=model.posterior.model_dump(),
            hierarchy=None if model.hierarchy is None else model.hierarchy.model_dump(),
            objective=build_named("objective", OBJECTIVES, objectives, params.train.objective.model_dump()),
            output_bias=model.output_bias,
            seed=params.seed,
        )
    except OptionError as error:
        raise InputError(f"model and train.objective: {error}") from error


def _refuse_library(model: Model, schema: Schema) -> None:
    """log p is given the total of what is observed, which does not say how large a missing count is to be filled in."""
    sections = [model.likelihood.model_dump()]
    sections += [section for section in sections[0].values() if isinstance(section, dict)]
    sections += sections[0].get("columns", {}).values()
    if schema.has_missing and any(section.get("library") for section in sections):
        raise InputError(
            "model.likelihood: library makes counts shares of a row's total, which is not known where values are missing, so "
            "that they cannot be filled in; choose negative_binomial, or complete the rows"
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


def hidden_share(params: TrainParams, schema: Schema) -> float:
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
    return {"name": "mixed", "columns": [_of_column(*pair) for pair in zip(chosen, schema.columns, strict=True)]}


def _of_column(options: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """A likelihood's options, with the number of levels, or of trials, that the column has where params leave it open."""
    levels = len(column.categories) if column.categories else int(column.range[1]) + 1
    counted = {"levels": max(2, levels), "trials": max(1, levels - 1)}
    return {name: counted.get(name) if value is None else value for name, value in options.items()}


def _refuse_unsuitable(likelihood: Likelihood, schema: Schema, params: TrainParams, source: str, folder: Path) -> None:
    """Refuse densities of what are no real numbers, probabilities of what are, and values outside the support."""
    for d, column in enumerate(schema.columns):
        _refuse_measure(likelihood.of(d), column, params, source)
    for split in SPLITS:
        y = load_split(split, folder)
        for first in range(0, len(y), ROWS):
            for row, d, support in outside(likelihood, np.asarray(y[first : first + ROWS])):
                column = schema.columns[d]
                raise InputError(
                    f"{_where(params, column)} needs values that are each {support}, but column {column.name!r} "
                    f"has {y[first + row, d]:g}, as prepared, in row {load_index(split, folder)[first + row] + 1} of "
                    f"{source}; choose {FITTING[column.kind]}, or mend the transform in data"
                )


def _refuse_measure(likelihood: Likelihood, column: Column, params: TrainParams, source: str) -> None:
    name = next(name for name, entry in LIKELIHOODS.items() if entry.class_name == type(likelihood).__name__)
    where, held = f"{_where(params, column)}: {name}", f"column {column.name!r} of {source}"
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


def _where(params: TrainParams, column: Column) -> str:
    if params.model.likelihood.name != "mixed":
        return "model.likelihood.name"
    named = column.name in params.model.likelihood.columns
    return f"model.likelihood.{f'columns.{column.name}' if named else column.kind}"
