"""Missing values filled in: against the conditional of the linear-Gaussian model, and against values that were hidden."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from pipeline.evaluation.hidden_values import by_iterative_imputer, crps
from pipeline.stages import evaluate, prepare, train
from pipeline.tables.schema import Column, Schema
from tests.anchors import LinearGaussian
from tests.test_mixed import linear
from tests.workspace import mixed_table, write_params, write_table
from vae import VAE
from vae.distributions.noise import generator
from vae.evidence import evidence_lower_bound, impute, log_likelihood_given_rest, reconstruction_by_column
from vae.training.rows.hiding import hide

Evaluated = tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]


def conditional(anchor: LinearGaussian, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the missing part of a row given the observed one."""
    covariance, gone = anchor.W @ anchor.W.T + anchor.variance * np.eye(len(anchor.b)), np.isnan(row)
    gain = covariance[np.ix_(gone, ~gone)] @ np.linalg.inv(covariance[np.ix_(~gone, ~gone)])
    mean = anchor.b[gone] + gain @ (row[~gone] - anchor.b[~gone])
    return mean, covariance[np.ix_(gone, gone)] - gain @ covariance[np.ix_(~gone, gone)]


@pytest.fixture(scope="module")
def model() -> tuple[LinearGaussian, VAE, torch.Tensor]:
    anchor = LinearGaussian(2, 5, 0.5, N=8)
    vae, y = linear(anchor)
    y[0] = torch.nan  # nothing is observed
    return anchor, vae, y


def test_means_are_those_of_the_conditional(model: tuple[LinearGaussian, VAE, torch.Tensor]) -> None:
    """40 estimates of each missing value of 8 rows, within 4.5 standard errors: false-alarm rate below 5e-4.

    The bias of self-normalised weights, of order 1 / S, is a twentieth of that error here.
    """
    anchor, vae, y = model
    means = torch.stack([impute(vae, y, 5000, 1, seed=seed).mean for seed in range(40)]).numpy()
    for n, row in enumerate(y.numpy()):
        gone = np.isnan(row)
        assert np.array_equal(means[0, n, ~gone], row[~gone])
        error = (means[:, n, gone].mean(axis=0) - conditional(anchor, row)[0]) / (means[:, n, gone].std(axis=0) / np.sqrt(40))
        assert np.abs(error).max(initial=0) < 4.5


def test_draws_are_from_the_conditional(model: tuple[LinearGaussian, VAE, torch.Tensor]) -> None:
    """Kolmogorov-Smirnov of 2,000 whitened draws per row; of 20,000 latents few are taken twice. False-alarm rate 1e-3."""
    anchor, vae, y = model
    found = impute(vae, y, 20_000, 2000)
    assert (found.effective_sample_size > 300).all()
    for n, row in enumerate(y.numpy()):
        gone = np.isnan(row)
        assert np.array_equal(found.draws[:, n, ~gone], np.broadcast_to(row[~gone], (2000, (~gone).sum())))
        if gone.any():
            mean, covariance = conditional(anchor, row)
            white = np.linalg.solve(np.linalg.cholesky(covariance), (found.draws[:, n, gone].numpy() - mean).T)
            assert min(stats.kstest(values, "norm").pvalue for values in white) > 1e-3 / 20


def test_each_value_is_scored_given_the_rest(model: tuple[LinearGaussian, VAE, torch.Tensor]) -> None:
    """40 estimates of p(y_d | rest) over the exact one have mean 1, within 4.5 standard errors: false-alarm rate 3e-4."""
    anchor, vae, y = model
    found = torch.stack([log_likelihood_given_rest(vae, y, 2000, seed=seed) for seed in range(40)]).numpy()
    assert np.array_equal(np.isnan(found[0]), np.isnan(y.numpy()))
    for n, d in np.argwhere(~np.isnan(y.numpy())):
        rest = y[n].clone().numpy()
        rest[d] = np.nan
        gone = list(np.flatnonzero(np.isnan(rest))).index(d)
        mean, covariance = conditional(anchor, rest)
        exact = stats.norm(mean[gone], np.sqrt(covariance[gone, gone])).logpdf(y[n, d])
        ratios = np.exp(found[:, n, d] - exact)
        assert abs(ratios.mean() - 1) < 4.5 * ratios.std(ddof=1) / np.sqrt(40)


def test_parts_of_the_reconstruction_add_up(model: tuple[LinearGaussian, VAE, torch.Tensor]) -> None:
    _, vae, y = model
    parts = reconstruction_by_column(vae, y, 300, seed=3)
    torch.testing.assert_close(parts.sum(dim=1), evidence_lower_bound(vae, y, 300, seed=3).reconstruction)
    assert not parts[y.isnan()].any()


def test_a_row_is_filled_in_as_it_would_be_alone(model: tuple[LinearGaussian, VAE, torch.Tensor]) -> None:
    _, vae, y = model
    whole, part = impute(vae, y, 300, 7), impute(vae, y[2:4], 300, 7, ids=torch.tensor([2, 3]))
    torch.testing.assert_close(whole.mean[2:4], part.mean, equal_nan=True)
    torch.testing.assert_close(whole.draws[:, 2:4], part.draws, equal_nan=True)


def test_hidden_values_are_as_many_as_asked_for() -> None:
    """Of 4,000 rows; proportions within 4.5 standard errors: false-alarm rate below 1e-4."""
    y = torch.zeros(4000, 10)
    hidden, whole = hide(y, 0.3, generator(0, "hide"))
    gone = hidden.isnan()
    assert not gone[whole].any()
    assert abs(whole.double().mean() - 0.7) < 4.5 * np.sqrt(0.21 / 4000)
    assert not gone[0].any()
    assert abs(gone.double().mean() - 0.15) < 4.5 * np.sqrt(0.3 * (1 / 3) / 4000)
    counts = np.bincount(gone.sum(dim=1)[~whole], minlength=11)  # uniform on 0, ..., 10, as a uniform rate makes them
    assert stats.chisquare(counts).pvalue > 1e-4
    assert torch.equal(hide(y, 0.3, generator(0, "hide"))[0].isnan(), gone)
    assert not hide(y, 0.0, generator(0, "hide"))[0].isnan().any()


def test_hiding_leaves_what_is_logged_comparable() -> None:
    """Rows that stay whole are what the training curve is of, so hiding moves it by little where there is nothing to learn."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2000, 3)).astype(np.float32)
    curves = []
    for share in (0.0, 0.6):
        likelihood = {"name": "mixed", "columns": [{"name": "gaussian"}] * 3}
        vae = VAE(
            {"hidden": [4]}, {"hidden": [4]}, data_dim=3, latent_dim=1, likelihood=likelihood, inputs=[{"missing": True}] * 3
        )
        vae.fit(y, max_epochs=8, learning_rate=0.01, hide=share, accelerator="cpu", progress=False)
        curves.append(vae.history.rows[-1]["train_elbo"])
    assert curves[0] == pytest.approx(curves[1], abs=0.1)
    assert curves[0] == pytest.approx(-3 * 0.5 * (np.log(2 * np.pi) + 1), abs=0.15)


def test_the_iterative_imputer_can_tell_a_category() -> None:
    """The comparison is one: a class that numbers tell is found, also where the whole column is hidden."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 300).astype(float)
    told = (codes[:, None] == [1, 2]) + rng.normal(0, 0.1, (300, 2))
    columns = [Column(name=name, kind="continuous") for name in "bc"]
    columns = [Column(name="a", kind="categorical", categories=["x", "y", "z"]), *columns]
    schema = Schema(columns=columns, format=".csv", shape=None, units="", rows={})
    filled, _ = by_iterative_imputer(schema, np.column_stack([codes, told]))(np.column_stack([np.full(300, np.nan), told]))
    assert (filled[:, 0] == codes).mean() > 0.95


def test_crps_is_the_integral_that_defines_it() -> None:
    """The integral over x of (F(x) - 1[x >= y])^2, F the distribution of the draws (Gneiting and Raftery 2007, eq. 20)."""
    rng = np.random.default_rng(0)
    draws, y = rng.normal(size=(50, 3)), np.array([0.3, -2.0, 5.0])
    for d in range(3):
        edges = np.sort([*draws[:, d], y[d]])
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        F = (draws[:, d] <= middle[:, None]).mean(axis=1)
        spread = np.abs(draws[:, d, None] - draws[:, d]).mean() / 2  # of which the unbiased form takes 50 / 49
        assert crps(draws, y)[d] == pytest.approx((((F - (middle >= y[d])) ** 2) * width).sum() - spread / 49)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """Of a table with gaps, whose columns depend on one another: examples.parquet, imputed.csv, and what metrics.json says."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("gaps")
        patched.chdir(folder)
        patched.setenv("DVC_ROOT", str(folder))
        write_table(folder, mixed_table(400, gaps=True))
        write_params(
            folder,
            **{
                "model.likelihood": {"name": "mixed"},
                "train.max_epochs": 150,
                "train.learning_rate": 0.01,
                "evaluate.imputation": {"samples": 200, "draws": 50},
            },
        )
        for stage in (prepare, train, evaluate):
            stage.main()
        metrics = json.loads(Path("results/evaluate/metrics.json").read_text())
        yield pd.read_parquet("results/evaluate/examples.parquet"), pd.read_csv("results/evaluate/imputed.csv"), metrics


def gaps_of(examples: pd.DataFrame) -> pd.DataFrame:
    """Which values the test rows lack, by their places in the file."""
    return mixed_table(400, gaps=True).loc[examples["index"].tolist()].isna()


def test_each_value_has_its_parts(evaluated: Evaluated) -> None:
    examples, _, _ = evaluated
    names = mixed_table().columns
    np.testing.assert_allclose(examples[[f"reconstruction_{name}" for name in names]].sum(axis=1), examples["reconstruction"])
    given = examples[[f"given_rest_{name}" for name in names]]
    assert np.array_equal(given.isna(), gaps_of(examples))
    assert np.isfinite(given.to_numpy()[given.notna().to_numpy()]).all()


def test_each_gap_is_filled_in(evaluated: Evaluated) -> None:
    examples, filled, _ = evaluated
    gaps = gaps_of(examples)
    places = sorted((row, name) for name in gaps for row in gaps.index[gaps[name]])
    assert sorted(zip(filled["index"], filled["column"], strict=True)) == places
    heights, sexes = (filled[filled["column"] == name] for name in ("height", "sex"))
    assert ((heights["q05"] <= heights["q50"]) & (heights["q50"] <= heights["q95"])).all()
    assert np.corrcoef(heights["mean"], mixed_table(400).loc[heights["index"], "height"])[0, 1] > 0.2
    assert set(sexes["most_probable"]) <= {"female", "male"}
    assert sexes["probability"].between(0.5, 1).all()
    assert (filled["reliable"] == (filled["effective_sample_size"] >= 20)).all()


@pytest.mark.parametrize("pattern", ["at_random", "whole_columns"])
def test_hidden_values_are_told_better_than_by_the_mean(evaluated: Evaluated, pattern: str) -> None:
    errors = evaluated[2]["imputation"][pattern]
    assert errors["vae"]["error"] < errors["mean"]["error"]
    assert errors["vae"]["crps"] < errors["mean"]["crps"]
    assert {"error", "crps", "error_rate"} == set(errors["iterative"])
