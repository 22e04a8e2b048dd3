"""Models of one or two latents, trained for some epochs on simulated rows, under each kind of likelihood; by quadrature."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.adversaries.closed_forms import affine_log_likelihood, mixture_log_likelihood
from tests.adversaries.handmade import simulate
from tests.adversaries.problem import ROWS, Kind, Problem
from tests.adversaries.quadrature import grid_log_likelihood
from vae import VAE
from vae.model.latent_model import LatentModel

TRAINING = 600  # rows
NETWORK: dict[str, Any] = {"hidden": (12,), "activation": "tanh"}


def trained(
    seed: int,
    likelihood: dict[str, Any],
    *,
    K: int = 2,
    D: int = 5,
    epochs: int = 12,
    missing: float = 0.0,
    outliers: float = 0.0,
    **settings: Any,
) -> Problem:
    """A model fitted to rows of another one, random but with larger weights; test rows are of that one.

    Args:
        seed: Of both models and all rows.
        likelihood: Of both.
        K: Latents of both.
        D: Columns.
        epochs: Of the training.
        missing: Share of values that are missing.
        outliers: Share of test rows whose columns are from different rows.
        settings: Of the fitted model.
    """
    rows = simulated(likelihood, K, D, seed)
    if missing:
        rows[torch.rand(rows.shape, generator=torch.Generator().manual_seed(seed)) < missing] = torch.nan
    train, y, pilot = rows.split([TRAINING, ROWS, ROWS])
    vae = VAE(NETWORK, NETWORK, data_dim=D, latent_dim=K, likelihood=likelihood, seed=seed, **settings)
    vae.fit(train, max_epochs=epochs, batch_size=50, learning_rate=1e-2, accelerator="cpu", progress=False, seed=seed)
    y = shuffled(y, round(outliers * ROWS), seed)
    return Problem(vae, y, pilot, grid_log_likelihood(vae, y, size=K, points=1201 if K == 1 else 281))


def affine(seed: int, *, K: int = 8, D: int = 16, variance: float = 0.3, epochs: int = 20, **settings: Any) -> Problem:
    """A model with an affine decoder, fitted to rows of a nonlinear one: many latents, in closed form."""
    likelihood = {"name": "gaussian", "variance": variance}
    train, y, pilot = simulated(likelihood, K, D, seed).split([TRAINING, ROWS, ROWS])
    parts: dict[str, Any] = {"data_dim": D, "latent_dim": K, "likelihood": likelihood, "seed": seed, **settings}
    vae = VAE({"hidden": ()}, NETWORK, **parts)
    vae.fit(train, max_epochs=epochs, batch_size=50, learning_rate=1e-2, accelerator="cpu", progress=False, seed=seed)
    values = affine_log_likelihood if vae.prior.normal else mixture_log_likelihood
    return Problem(vae, y, pilot, values(vae, y))


def simulated(likelihood: dict[str, Any], K: int, D: int, seed: int) -> Tensor:
    """Rows for training, test and pilot."""
    truth = LatentModel(NETWORK, NETWORK, data_dim=D, latent_dim=K, likelihood=likelihood, seed=100 + seed)
    with torch.no_grad():
        truth.generative.network[0].weight.mul_(2)
        truth.generative.network[-1].weight.mul_(3)
    return simulate(truth, TRAINING + 2 * ROWS, seed=seed)[0]


def shuffled(y: Tensor, count: int, seed: int) -> Tensor:
    """The first rows with their columns from different rows."""
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(y))[:, None], y.shape[1]), axis=0)
    y = y.clone()
    y[:count] = y.gather(0, torch.tensor(order))[:count]
    return y


MIXED = {
    "name": "mixed",
    "columns": [{"name": "gaussian_learned"}] * 2
    + [{"name": "bernoulli"}, {"name": "poisson"}, {"name": "categorical", "levels": 3}],
}
INPUTS = [{"missing": True}] * 5

KINDS: dict[str, Kind] = {
    "trained_bernoulli": partial(trained, likelihood={"name": "bernoulli"}, D=20),
    "trained_poisson": partial(trained, likelihood={"name": "poisson"}),
    "trained_negative_binomial": partial(trained, likelihood={"name": "negative_binomial"}),
    "trained_categorical": partial(trained, likelihood={"name": "categorical", "levels": 4}, D=8),
    "trained_gamma": partial(trained, likelihood={"name": "gamma"}),
    "trained_beta": partial(trained, likelihood={"name": "beta"}),
    "trained_student_t": partial(trained, likelihood={"name": "student_t"}),
    "trained_discretized_logistic": partial(trained, likelihood={"name": "discretized_logistic", "levels": 32}),
    "trained_continuous_bernoulli": partial(trained, likelihood={"name": "continuous_bernoulli"}, D=10),
    "trained_binomial": partial(trained, likelihood={"name": "binomial", "trials": 10}),
    "trained_ordinal": partial(trained, likelihood={"name": "ordinal", "levels": 5}, D=8),
    "trained_log_normal": partial(trained, likelihood={"name": "log_normal"}, K=1),
    "trained_inflated": partial(trained, likelihood={"name": "zero_inflated_negative_binomial"}, K=1),
    "trained_gaussian": partial(trained, likelihood={"name": "gaussian_learned"}, epochs=30),
    "trained_heteroscedastic": partial(trained, likelihood={"name": "gaussian_heteroscedastic"}),
    "trained_missing": partial(trained, likelihood=MIXED, missing=0.3, inputs=INPUTS),
    "trained_outliers": partial(trained, likelihood={"name": "gaussian_learned"}, outliers=0.1, epochs=30),
    "trained_affine": affine,
    "trained_affine_sharp": partial(affine, K=4, variance=0.01),
    "trained_affine_full": partial(affine, K=6, posterior="full_covariance_gaussian"),
    "trained_affine_flow": partial(affine, K=3, D=8, epochs=6, posterior={"name": "flow", "transforms": 2, "hidden": [16]}),
    "trained_affine_mixture": partial(affine, K=4, prior={"name": "gaussian_mixture", "components": 5}),
    "trained_briefly": partial(trained, likelihood={"name": "bernoulli"}, D=20, epochs=1),
}
