"""Columns of different kinds, and missing values, against the sums and marginals that they stand for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.anchors import LIKELIHOODS, LinearGaussian, rows_for, set_affine
from vae import VAE
from vae.evidence import Annealing, annealed_importance_sampling, exact, importance_sampling, tune_step_sizes
from vae.likelihoods import Mixed
from vae.model.conditionals import build_likelihood
from vae.model.encoding import Encoding, Input

KINDS = [options for options in LIKELIHOODS for _ in range(2)]  # two columns of each
MIXED = {"name": "mixed", "columns": [KINDS[d] for d in np.random.default_rng(0).permutation(len(KINDS))]}


def mixed_rows(N: int) -> torch.Tensor:
    """Rows of `MIXED`."""
    return torch.cat([rows_for(options, N, 1, seed=d) for d, options in enumerate(MIXED["columns"])], dim=1)


def output(likelihood: Mixed, N: int) -> torch.Tensor:
    return torch.randn(N, likelihood.outputs(len(KINDS)), dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def built() -> Mixed:
    likelihood = build_likelihood(MIXED, len(KINDS)).double()
    assert isinstance(likelihood, Mixed)
    return likelihood


@torch.no_grad()
def test_log_prob_is_the_sum_over_columns() -> None:
    likelihood, y = built(), mixed_rows(7)
    p, f = likelihood(output(likelihood, 7)), output(likelihood, 7)
    expected = torch.zeros(7, dtype=torch.float64)
    for (part, values), own in zip(likelihood.parted(y), f.split(likelihood.widths, dim=-1), strict=True):
        expected += part(own).log_prob(values)
    torch.testing.assert_close(p.log_prob(y), expected)
    torch.testing.assert_close(p.log_prob_columns(y).sum(dim=-1), expected)
    for d in (0, 9, 20):  # each column's part is its own
        alone = y.clone()
        alone[:, d] = y.flip(0)[:, d]
        changed = (p.log_prob_columns(alone) != p.log_prob_columns(y)).any(dim=0)
        assert changed.nonzero().flatten().tolist() in ([d], [])


@torch.no_grad()
def test_draws_means_and_support_are_in_the_order_of_the_columns() -> None:
    likelihood = built()
    p = likelihood(output(likelihood, 3))
    draws = p.sample((4000,), torch.Generator().manual_seed(1))
    assert draws.shape == (4000, 3, len(KINDS))
    assert likelihood.allows(draws).all()
    for d, options in enumerate(MIXED["columns"]):
        support = build_likelihood(options, 1).support
        assert likelihood.of(d).support.name == support.name
        wrong = draws[0].clone()
        wrong[0, d] = torch.inf
        assert (~likelihood.allows(wrong)).nonzero().tolist() == [[0, d]]
    error = (draws.mean(dim=0) - p.mean) / (p.variance / len(draws)).sqrt()
    assert error.abs().max() < 4.5  # of 102 at 7e-6 each: false-alarm rate 7e-4


def test_missing_values_contribute_nothing_and_no_gradient_is_nan() -> None:
    likelihood, y = built(), mixed_rows(6)
    missing = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    holes = y.masked_fill(missing, torch.nan)
    f = output(likelihood, 6).requires_grad_()
    columns = likelihood(f).log_prob_columns(holes)
    torch.testing.assert_close(columns, likelihood(f).log_prob_columns(y).masked_fill(missing, 0.0))
    likelihood(f).log_prob(holes).sum().backward()
    assert f.grad is not None
    assert f.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in likelihood.parameters())
    assert likelihood(f).log_prob(torch.full_like(y, torch.nan)).abs().max() == 0


def linear(anchor: LinearGaussian) -> tuple[VAE, torch.Tensor]:
    """The linear-Gaussian model with holes: each column is Gaussian, and the inference network sees what is missing."""
    K, D = anchor.W.shape[1], len(anchor.b)
    column = {"name": "gaussian", "variance": anchor.variance}
    vae = VAE(
        {"hidden": ()},
        {"hidden": (), "activation": "tanh"},
        data_dim=D,
        latent_dim=K,
        likelihood={"name": "mixed", "columns": [column] * D},
        inputs=[{"missing": True}] * D,
    ).double()
    vae.generative.likelihood.of(0).get_buffer("variance").fill_(anchor.variance)
    set_affine(vae.generative.network[0], anchor.W, anchor.b)
    set_affine(vae.inference.network[0], np.zeros((2 * K, 2 * D)), np.zeros(2 * K))  # the prior, whose weights are bounded
    holes = torch.rand(anchor.y.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    return vae, anchor.y.masked_fill(holes, torch.nan)


def observed_log_density(anchor: LinearGaussian, y: torch.Tensor) -> np.ndarray[Any, Any]:
    """log p of the observed part of each row: a marginal of the joint normal density."""
    covariance = anchor.W @ anchor.W.T + anchor.variance * np.eye(len(anchor.b))
    found = []
    for row in y.numpy():
        seen = ~np.isnan(row)
        normal = stats.multivariate_normal(anchor.b[seen], covariance[np.ix_(seen, seen)]) if seen.any() else None
        found.append(normal.logpdf(row[seen]) if normal else 0.0)
    return np.array(found)


def test_the_observed_part_has_its_exact_log_likelihood() -> None:
    anchor = LinearGaussian(2, 5, 0.5, N=12)
    vae, y = linear(anchor)
    np.testing.assert_allclose(exact(vae, y).log_likelihood, observed_log_density(anchor, y), atol=1e-6)


@pytest.mark.parametrize(
    "estimate",
    [
        lambda vae, y, annealing, seed: importance_sampling(vae, y, 1000, seed=seed),
        lambda vae, y, annealing, seed: annealed_importance_sampling(vae, y, 32, annealing=annealing, seed=seed),
    ],
    ids=["importance", "annealed"],
)
def test_estimates_of_the_observed_part_are_unbiased(estimate: Any) -> None:
    """The mean of estimates of p over p is 1: 12 rows, each within 4.5 standard errors of 60 estimates.

    False-alarm rate: below 1e-4 for normal means of estimates, which these nearly are.
    """
    anchor = LinearGaussian(2, 5, 0.5, N=12)
    vae, y = linear(anchor)
    annealing = tune_step_sizes(vae, y, annealing=Annealing(temperatures=6, leapfrog_steps=2))
    repeats = torch.stack([estimate(vae, y, annealing, seed).log_likelihood for seed in range(60)]).numpy()
    ratios = np.exp(repeats - observed_log_density(anchor, y))
    error = (ratios.mean(axis=0) - 1) / (ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios)))
    assert np.abs(error).max() < 4.5


def test_inputs_of_the_inference_network() -> None:
    encoding = Encoding([Input(shift=2.0, scale=4.0, missing=True), Input(classes=3, missing=True), Input(log=True)])
    y = torch.tensor([[6.0, 2.0, math.e - 1], [np.nan, np.nan, 0.0]])
    assert encoding.width == 7
    expected = [[1, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1]]  # two numbers, three classes, two indicators
    torch.testing.assert_close(encoding(y), torch.tensor(expected, dtype=torch.float32))


def test_a_mixed_model_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    y = mixed_rows(30)
    y[torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.2] = torch.nan
    inputs = [
        Input(classes=options.get("levels", 0) if options["name"] == "categorical" else 0, missing=True) for options in KINDS
    ]
    inputs = [inputs[KINDS.index(options)] for options in MIXED["columns"]]
    vae = VAE({"hidden": [8]}, {"hidden": [8]}, data_dim=len(KINDS), latent_dim=2, likelihood=MIXED, inputs=inputs)
    vae.fit(y, validation=y, max_epochs=3, batch_size=10, learning_rate=1e-2)
    elbo = [row["train_elbo"] for row in vae.history.rows]
    assert elbo[-1] > elbo[0]
    vae.save(tmp_path)
    again = VAE.load(tmp_path)
    torch.testing.assert_close(again.log_likelihood(y, 50), vae.log_likelihood(y, 50), rtol=0, atol=0)
    assert torch.equal(again.generate(5), vae.generate(5))
    assert not again.generate(50).isnan().any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_likelihood({"name": "mixed", "columns": [{"name": "poisson"}]}, 2), "each of the 2 columns; got 1"),
        (lambda: build_likelihood({"name": "mixed", "columns": [MIXED]}, 1), "mixed has no mixed columns"),
        (lambda: build_likelihood({"name": "mixed", "columns": [{"name": "nope"}]}, 1), "must be one of .*; got 'nope'"),
        (lambda: build_likelihood({"name": "categorical", "levels": 1}, 1), "levels must be at least 2; got 1"),
        (lambda: build_likelihood({"name": "student_t", "min_scale": 0.0}, 1), "min_scale must be greater than 0; got 0.0"),
        (lambda: Input(scale=0.0), "scale must be greater than 0; got 0.0"),
        (lambda: Input(classes=1), "classes must be 0 or at least 2; got 1"),
        (lambda: VAE({}, {}, data_dim=2, latent_dim=1, inputs=[{}]), "each of the 2 columns goes in; got 1"),
    ],
)
def test_bad_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_rows_are_refused() -> None:
    columns = [{"name": "poisson"}, {"name": "categorical", "levels": 3}]
    vae = VAE(
        {}, {}, data_dim=2, latent_dim=1, likelihood={"name": "mixed", "columns": columns}, inputs=[{"missing": True}, {}]
    )
    assert vae.as_rows([[np.nan, 1.0]]).shape == (1, 2)
    for rows, message in (
        ([[1.0, 2.0], [0.0, 3.0]], "a whole number from 0 to 2 under the Categorical likelihood; got 3.0 in row 1, column 1"),
        ([[-1.0, 2.0]], "a whole number from 0 on under the Poisson likelihood; got -1.0 in row 0, column 0"),
        ([[1.0, np.nan]], "Categorical likelihood; got nan in row 0, column 1"),
    ):
        with pytest.raises(ValueError, match=message):
            vae.as_rows(rows)
