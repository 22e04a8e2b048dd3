"""Affine decoders under a standard normal prior: log p(y) in closed form, in any number of dimensions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.adversaries.closed_forms import affine_log_likelihood
from tests.adversaries.handmade import gaussian, regress, set_encoder, simulate
from tests.adversaries.problem import ROWS, Array, Kind, Problem
from tests.anchors import set_affine
from tests.chains import LinearChain, code
from vae.model.latent_model import LatentModel


def linear(
    seed: int,
    *,
    K: int = 4,
    D: int = 8,
    stddev: float = 0.3,
    common: float = 0.0,
    widen: float = 1.0,
    shift: float = 0.0,
    conditional: bool = False,
    posterior: str = "diagonal_gaussian",
) -> Problem:
    """Rows of a random affine model, and an encoder with the posterior's means.

    Args:
        seed: Of weights and rows.
        K: Latents.
        D: Columns.
        stddev: Of the noise.
        common: How much of each column of W is the same: the posterior's correlation.
        widen: Factor on the standard deviations of q.
        shift: Of the means of q, in standard deviations of the posterior.
        conditional: Whether q has the standard deviations of a latent given the others, as training of the ELBO leads to.
        posterior: Family of q.
    """
    rng = np.random.default_rng(seed)
    W = common * rng.normal(size=(D, 1)) + (1 - common) * rng.normal(size=(D, K))
    vae = affine_model(W, rng.normal(size=D), stddev, posterior=posterior)
    mean, covariance = given(W, stddev)
    marginal = np.sqrt(np.diag(covariance))
    widths = 1 / np.sqrt(np.diag(np.linalg.inv(covariance))) if conditional else marginal
    if posterior == "diagonal_gaussian":
        set_encoder(vae, mean, shift * marginal - mean @ bias(vae), widen * widths)
    else:
        _set_full(vae, mean, covariance)
    return affine_problem(vae, simulate(vae, seed=seed)[0], seed)


def affine_model(W: Array, b: Array, stddev: float, **settings: Any) -> LatentModel:
    """y = W z + b + noise."""
    D, K = W.shape
    parts: dict[str, Any] = {"likelihood": gaussian(stddev), **settings}
    vae = LatentModel({"hidden": ()}, {"hidden": parts.pop("inference", ())}, data_dim=D, latent_dim=K, **parts)
    set_affine(vae.generative.network[0], W, b)
    return vae.eval()


def affine_problem(vae: LatentModel, y: Tensor, seed: int) -> Problem:
    """These rows, with pilot rows that the model makes."""
    return Problem(vae, y, simulate(vae, seed=1000 + seed)[0], affine_log_likelihood(vae, y))


def given(W: Array, stddev: float) -> tuple[Array, Array]:
    """Slope (K, D) and covariance of the latents given y - b."""
    covariance: Array = np.linalg.inv(np.eye(W.shape[1]) + W.T @ W / stddev**2).astype(np.float64)
    return covariance @ W.T / stddev**2, covariance


def bias(vae: LatentModel) -> Array:
    """b."""
    layer: Any = vae.generative.network[0]
    return np.asarray(layer.bias.detach().double().numpy())


def collapsed(seed: int, *, K: int = 4, stddev: float = 1.0) -> Problem:
    """The encoder says the prior of every row."""
    problem = linear(seed, K=K, stddev=stddev)
    set_encoder(problem.vae, np.zeros((K, problem.y.shape[1])), np.zeros(K), np.ones(K))
    return problem


def resonant(seed: int, *, K: int = 8, widen: float = 1.0, shift: float = 0.0) -> Problem:
    """All directions of the posterior have the same curvature, so that trajectories return to where they began."""
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(K, K)))
    vae = affine_model(3 * Q, np.zeros(K), 0.5)
    mean, covariance = given(3 * Q, 0.5)
    stddev = np.sqrt(np.diag(covariance))
    set_encoder(vae, mean, shift * stddev, widen * stddev)
    return affine_problem(vae, simulate(vae, seed=seed)[0], seed)


def outliers(seed: int, *, share: float = 0.05, size: float = 10.0, **settings: Any) -> Problem:
    """Some rows lie so many standard deviations of their columns from the mean."""
    problem = linear(seed, **settings)
    y = problem.y.clone()
    count = max(1, round(share * len(y)))
    direction = torch.randn(count, y.shape[1], generator=torch.Generator().manual_seed(seed))
    y[:count] += size * y.std(dim=0) * direction
    return affine_problem(problem.vae, y, seed)


def inverted(seed: int, *, share: float = 0.1) -> Problem:
    """Some rows have the other sign."""
    problem = linear(seed, stddev=0.1)
    y = problem.y.clone()
    y[: round(share * len(y))] *= -1
    return affine_problem(problem.vae, y, seed)


def uneven(seed: int, *, spread: float = 1.5) -> Problem:
    """How wide q is depends on the row: some are far too narrow, others far too wide."""
    problem = linear(seed, K=3, stddev=0.3)
    vae, layer = problem.vae, problem.vae.inference.network[0]
    rows = problem.y.double().numpy()
    with torch.no_grad():
        layer.weight[3:, 0] += spread / rows[:, 0].std()
        layer.bias[3:] -= spread * rows[:, 0].mean() / rows[:, 0].std()
    return affine_problem(vae, problem.y, seed)


def mismatched(seed: int, *, factors: tuple[float, ...] = (0.02, 1.0, 1.0, 10.0)) -> Problem:
    """Each dimension of q is too narrow, or too wide, by a factor of its own."""
    problem = linear(seed, K=len(factors), stddev=0.5)
    layer = problem.vae.inference.network[0]
    with torch.no_grad():
        stddev = problem.vae.inference(problem.y).stddev[0].double().numpy()
        layer.bias[len(factors) :] = torch.tensor(code(stddev * np.array(factors)))
    return affine_problem(problem.vae, problem.y, seed)


def saturated(seed: int, *, count: int = 4, size: float = 12.0, N: int = 100) -> Problem:
    """The encoder does not follow a few rows that are far away: what it has learned ends with a tanh."""
    rng = np.random.default_rng(seed)
    vae = affine_model(rng.normal(size=(6, 3)), np.zeros(6), 0.2, inference=(32,))
    y = simulate(regress(vae), N, seed=seed)[0]
    y[:count] *= size
    return affine_problem(vae, y, seed)


def offset(seed: int, *, bias: float = 2e4, stddev: float = 2e-3, size: float = 1.0) -> Problem:
    """The data are so far from 0 that float32 cannot tell values apart that the noise can."""
    rng = np.random.default_rng(seed)
    W = size * rng.normal(size=(10, 2))
    vae = affine_model(W, np.full(10, bias), stddev)
    mean, covariance = given(W, stddev)
    set_encoder(vae, mean, -mean @ np.full(10, bias), np.sqrt(np.diag(covariance)))
    y = bias + rng.normal(size=(ROWS, 2)) @ W.T + stddev * rng.normal(size=(ROWS, 10))
    return affine_problem(vae, torch.tensor(y).float(), seed)


def hierarchy(seed: int, *, tight: float = 1.0, widen: float = 1.0) -> Problem:
    """Two layers of latents, of which one is affine in the other."""
    chain = LinearChain("bottom_up", (3, 2), widen=widen, tight=tight, N=2 * ROWS)
    order = np.random.default_rng(seed).permutation(2 * ROWS)
    rows = chain.y[order].float()
    y, pilot = rows.split(ROWS)
    return Problem(chain.vae.float().eval(), y, pilot, chain.log_density(y.double()))


def _set_full(vae: LatentModel, mean: Array, covariance: Array) -> None:
    """q is the posterior, covariances and all."""
    L = np.linalg.cholesky(covariance)
    below = L[np.tril_indices(len(L), -1)]
    weight = np.vstack([mean, np.zeros((len(L) + len(below), mean.shape[1]))])
    set_affine(vae.inference.network[0], weight, np.concatenate([-mean @ bias(vae), code(np.diag(L)), below]))


KINDS: dict[str, Kind] = {
    "linear_1": partial(linear, K=1, D=3, stddev=1.0),
    "linear_4": partial(linear, conditional=True),
    "linear_8": partial(linear, K=8, D=12, stddev=0.1, conditional=True),
    "linear_sharp": partial(linear, D=10, stddev=1e-2, widen=1.5),
    "linear_near_deterministic": partial(linear, K=3, D=6, stddev=1e-4, conditional=True),
    "linear_correlated": partial(linear, K=8, D=8, common=0.6, stddev=0.3, conditional=True),
    "linear_strongly_correlated": partial(linear, K=8, D=8, common=0.9, stddev=0.05, conditional=True),
    "linear_full_covariance": partial(linear, K=6, common=0.6, posterior="full_covariance_gaussian"),
    "linear_collapsed": collapsed,
    "linear_collapsed_sharp": partial(collapsed, K=4, stddev=0.03),
    "linear_shifted": partial(linear, shift=5.0, widen=1.2),
    "linear_shifted_far": partial(linear, stddev=0.1, shift=30.0),
    "linear_overconfident_10": partial(linear, widen=0.1),
    "linear_overconfident_100": partial(linear, widen=0.01),
    "linear_underconfident": partial(linear, widen=3.0),
    "linear_underconfident_10": partial(linear, stddev=0.05, widen=10.0),
    "linear_uneven": uneven,
    "linear_mismatched": mismatched,
    "linear_mismatched_8": partial(mismatched, factors=(0.1, 0.1, 0.3, 0.3, 1.0, 1.0, 3.0, 3.0)),
    "linear_saturated": saturated,
    "linear_offset": offset,
    "linear_offset_far": partial(offset, bias=3e4, size=1e-3),
    "linear_resonant": resonant,
    "linear_resonant_shifted": partial(resonant, widen=0.5, shift=3.0),
    "linear_outliers": outliers,
    "linear_outlier_columns": partial(outliers, share=0.01, size=30.0, K=2, D=6, stddev=0.5),
    "linear_inverted": inverted,
    "linear_hierarchy": partial(hierarchy, widen=1.2),
    "linear_tight_hierarchy": partial(hierarchy, tight=0.02, widen=1.5),
}
