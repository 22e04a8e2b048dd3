"""Gaps filled in, and how well: on hidden test values, beside mean imputation and scikit-learn's IterativeImputer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pipeline.evaluation.computations import Work, in_blocks
from pipeline.evaluation.workers import Call
from pipeline.params.evaluate import ImputationSettings
from pipeline.tables.schema import Column, Schema
from pipeline.tables.slices import by_slices
from pipeline.tables.statistics import Array
from vae.evidence import Imputation, impute
from vae.evidence.estimate import rows_per_chunk
from vae.evidence.imputation import join
from vae.model.latent_model import LatentModel

MOST_PREDICTORS = 20  # of a column, in the IterativeImputer
RELIABLE = 20  # effective samples, below which means and draws rest on little
LINEAR = ("none", "standardize")  # transformations whose mean is the mean's
Mask = NDArray[np.bool_]
Integers = NDArray[np.signedinteger]
Filled = tuple[Array, Array]  # means (N, D) and draws (M, N, D), in raw numbers


Impute = Callable[[str, Array, Integers], Imputation]  # name of the computation, prepared rows (N, D), their ids (N,)


def imputing(work: Work, vae: LatentModel, settings: ImputationSettings, seed: int) -> Impute:
    """How to fill in missing values, by workers."""

    def impute_rows(what: str, y: Array, ids: Integers) -> Imputation:
        rows, their_ids = torch.tensor(y), torch.tensor(ids)

        def call(block: Tensor) -> Call:
            return partial(impute, y=rows[block], S=settings.samples, M=settings.draws, seed=seed, ids=their_ids[block])

        # not kept, as draws are large
        return work.one(in_blocks(what, their_ids, rows_per_chunk(vae, settings.samples), call, join, kept=False))

    return impute_rows


def fill(
    vae: LatentModel, y: Array, schema: Schema, index: Integers, *, settings: ImputationSettings, seed: int, ids: Tensor
) -> pd.DataFrame:
    """A row for each missing value of y (N, D): its mean, its spread and its quantiles, or its most probable category.

    Args:
        vae: The model, which fills them in.
        y: Prepared rows, in each of which a value is missing.
        schema: Of the data.
        index: Their places in the raw file, (N,).
        settings: How many latents and draws.
        seed: Of the noise.
        ids: Of the rows, (N,), which address the noise.
    """
    gaps = np.argwhere(np.isnan(y))
    filled = impute(vae, vae.as_rows(y), settings.samples, settings.draws, seed=seed, ids=ids) if len(y) else None
    table = [_described(schema.columns[d], filled, n, d) for n, d in gaps] if filled else []
    places = pd.DataFrame({"index": index[gaps[:, 0]], "column": [schema.names[d] for d in gaps[:, 1]]})
    return pd.concat([places, pd.DataFrame(table, columns=DESCRIBED)], axis=1)


def fill_by_workers(
    work: Work, vae: LatentModel, y: Array, schema: Schema, index: Integers, *, settings: ImputationSettings, seed: int
) -> Iterator[pd.DataFrame]:
    """The same of many rows, of which positions are the ids, some of them at a time; at first a table without rows."""
    places = np.flatnonzero(by_slices(lambda rows: np.isnan(rows).any(axis=1), y))

    def call(block: Tensor) -> Call:
        rows = places[block.numpy()]
        ids = torch.from_numpy(rows)
        return partial(fill, y=np.asarray(y[rows]), schema=schema, index=index[rows], settings=settings, seed=seed, ids=ids)

    yield fill(vae, y[:0], schema, index[:0], settings=settings, seed=seed, ids=torch.arange(0))
    if len(places):
        most = rows_per_chunk(vae, settings.samples)
        yield from work.in_order(in_blocks("missing values filled in", torch.from_numpy(places), most, call, list))


DESCRIBED = [
    "mean",
    "standard_deviation",
    "q05",
    "q50",
    "q95",
    "most_probable",
    "probability",
    "effective_sample_size",
    "reliable",
]


def _described(column: Column, filled: Imputation, n: int, d: int) -> dict[str, Any]:
    """What is said of row n's value in a column, which is the d-th."""
    size = float(filled.effective_sample_size[n])
    draws = filled.draws[:, n, d].numpy()
    entry: dict[str, Any] = {"effective_sample_size": size, "reliable": size >= RELIABLE}
    if column.categories:
        shares = pd.Series(column.categories)[draws.astype(int)].value_counts(normalize=True)
        return entry | {"most_probable": shares.index[0], "probability": float(shares.iloc[0])}
    raw, mean = column.numbers(draws), _raw_means(column, filled.mean[n, d].numpy()[None], draws[:, None])
    q05, q50, q95 = np.quantile(raw, [0.05, 0.5, 0.95])
    return entry | {"mean": float(mean[0]), "standard_deviation": float(raw.std()), "q05": q05, "q50": q50, "q95": q95}


def _raw_means(column: Column, means: Array, draws: Array) -> Array:
    """E[x] from prepared means (N,), without added noise; where the transformation bends the median of draws (M, N).

    There E[x] may be infinite: exp of a Student-t has no mean.
    """
    if column.transform.name in LINEAR:
        return column.numbers(means, snap=False) - (column.step or 0.0) / 2
    return np.median(column.numbers(draws), axis=0)


def quality(
    impute: Impute, schema: Schema, train: Array, test: Array, settings: ImputationSettings, seed: int
) -> dict[str, Any]:
    """Errors of hidden test values: hidden one by one at random, and whole columns at a time.

    Returns:
        For each pattern and method ``error``, the root mean squared error of the mean, and ``crps`` of the draws, in standard
        deviations of the training rows, averaged over columns of numbers, and ``error_rate``, over columns of categories; null
        where there are none.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(test))[: settings.examples])
    y = test[rows]
    scattered = (rng.random(y.shape) < settings.hidden_share) & ~np.isnan(y)
    columns = [np.arange(y.shape[1]) == d for d in range(y.shape[1])]
    patterns = {"at_random": [scattered], "whole_columns": [column & ~np.isnan(y) for column in columns]}
    methods: dict[str, Callable[[Array], Filled]] = {
        "vae": lambda holes: by_vae(impute, schema, holes, rows),
        "mean": lambda holes: by_mean(schema, train, holes),
        "iterative": by_iterative_imputer(schema, train),
    }
    content: dict[str, Any] = {"examples": len(rows), "hidden_share": settings.hidden_share}
    spreads = np.nanstd(schema.to_raw(train), axis=0)
    for pattern, masks in patterns.items():
        content[pattern] = {name: _errors(schema, spreads, y, masks, method) for name, method in methods.items()}
    return content


def _errors(schema: Schema, spreads: Array, y: Array, masks: list[Mask], method: Callable[[Array], Filled]) -> dict[str, Any]:
    truth = schema.to_raw(y)
    kept: dict[str, list[list[float]]] = {"error": [], "crps": [], "error_rate": []}
    for mask in masks:
        means, draws = method(np.where(mask, np.nan, y))
        for d, column in enumerate(schema.columns):
            if mask[:, d].any():
                hidden = truth[mask[:, d], d], means[mask[:, d], d], draws[:, mask[:, d], d]
                for name, value in _errors_of_column(column, spreads[d], *hidden).items():
                    kept[name].append(value)
    return {name: float(np.mean(values)) if values and np.isfinite(values).all() else None for name, values in kept.items()}


def _errors_of_column(column: Column, spread: float, truth: Array, means: Array, draws: Array) -> Mapping[str, Any]:
    if column.categories or column.kind == "binary":
        codes = np.arange(int(draws.max()) + 1)
        commonest = codes[(draws[None] == codes[:, None, None]).mean(axis=1).argmax(axis=0)]
        return {"error_rate": (commonest != truth).mean()}
    spread = spread or 1.0
    return {"error": np.sqrt(((means - truth) ** 2).mean()) / spread, "crps": crps(draws, truth).mean() / spread}


def crps(draws: Array, truth: Array) -> Array:
    """E|x - y| - E|x - x'| / 2 for values y (N,), unbiased from M draws (M, N) (Gneiting and Raftery 2007, eq. 21)."""
    M = len(draws)
    ranks = (2 * np.arange(1, M + 1) - M - 1)[:, None]
    return np.abs(draws - truth).mean(axis=0) - (ranks * np.sort(draws, axis=0)).sum(axis=0) / max(1, M * (M - 1))


def by_vae(impute: Impute, schema: Schema, holes: Array, ids: Integers) -> Filled:
    """The model's means and draws."""
    filled = impute("hidden values filled in", holes, ids)
    draws, means = filled.draws.numpy(), filled.mean.numpy()
    raw = [_raw_means(column, means[:, d], draws[..., d]) for d, column in enumerate(schema.columns)]
    return np.stack(raw, axis=-1), schema.to_raw(draws)


def by_mean(schema: Schema, train: Array, holes: Array) -> Filled:
    """The training rows' mean, and their values as draws."""
    raw = schema.to_raw(train)
    values = [column[~np.isnan(column)] for column in raw.T]
    draws = np.stack([np.quantile(x, np.linspace(0, 1, 201), method="nearest") for x in values], axis=-1)
    means = np.array([x.mean() for x in values])
    return np.broadcast_to(means, holes.shape), np.broadcast_to(draws[:, None], (len(draws), *holes.shape))


def by_iterative_imputer(schema: Schema, train: Array) -> Callable[[Array], Filled]:
    """scikit-learn's IterativeImputer on numbers and on classes one by one; its one value stands for draws too.

    Its ridge regressions and its rule to stop depend on units, so that it is given standardised columns.
    """
    dummies = _dummies(schema, train)
    few = MOST_PREDICTORS if dummies.shape[1] > MOST_PREDICTORS else None
    scaler = StandardScaler().fit(dummies)
    imputer = IterativeImputer(random_state=0, n_nearest_features=few, keep_empty_features=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped early
        imputer.fit(scaler.transform(dummies))

    def method(holes: Array) -> Filled:
        filled = scaler.inverse_transform(imputer.transform(scaler.transform(_dummies(schema, holes))))
        means, start = [], 0
        for column in schema.columns:
            width = _width(column)
            means.append(_undummied(column, filled[:, start : start + width]))
            start += width
        return np.stack(means, axis=-1), np.stack(means, axis=-1)[None]

    return method


def _width(column: Column) -> int:
    return len(column.categories or ()) - 1 if column.kind == "categorical" else 1


def _dummies(schema: Schema, y: Array) -> Array:
    """Raw numbers, and 0 or 1 for each category but the first, which the others tell."""
    raw, parts = schema.to_raw(y), []
    for d, column in enumerate(schema.columns):
        x = raw[:, d : d + 1]
        ones = np.where(np.isnan(x), np.nan, x == np.arange(1, _width(column) + 1))
        parts.append(ones if column.kind == "categorical" else x)
    return np.concatenate(parts, axis=1)


def _undummied(column: Column, x: Array) -> Array:
    if column.kind == "categorical":
        return np.column_stack([1 - x.sum(axis=1), x]).argmax(axis=1).astype(np.float64)
    if column.categories or column.kind == "binary":
        return np.clip(np.round(x[:, 0]), 0, max(1, len(column.categories or ()) - 1))
    return x[:, 0]
