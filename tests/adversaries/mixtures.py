"""Affine decoders under a mixture of normals as prior: log p(y) in closed form, with posteriors of many modes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from tests.adversaries.closed_forms import affine_parts, mixture_log_likelihood, normal_log_density, numpy
from tests.adversaries.handmade import regress, set_encoder, simulate
from tests.adversaries.linear import affine_model
from tests.adversaries.problem import Array, Kind, Problem
from tests.anchors import set_affine
from tests.chains import code
from vae.model.latent_model import LatentModel


def mixture_model(W: Array, stddev: float, weights: Sequence[float], means: Array, stddevs: Array) -> LatentModel:
    """y = W z + noise, z from the mixture of components with means and standard deviations (M, K)."""
    prior = {"name": "gaussian_mixture", "components": len(means)}
    vae = affine_model(W, np.zeros(len(W)), stddev, prior=prior)
    with torch.no_grad():
        vae.prior.logits.copy_(torch.tensor(weights).log())
        vae.prior.mean.copy_(torch.tensor(means))
        vae.prior.raw_stddev.copy_(torch.tensor(code(stddevs)))
    return vae


def mixture_problem(vae: LatentModel, seed: int, y: Tensor | None = None) -> Problem:
    """These rows, or those that the model makes."""
    rows = simulate(vae, seed=seed)[0] if y is None else y
    return Problem(vae, rows, simulate(vae, seed=1000 + seed)[0], mixture_log_likelihood(vae, rows))


def close(seed: int) -> Problem:
    """Three components that overlap."""
    rng = np.random.default_rng(seed)
    vae = mixture_model(rng.normal(size=(5, 2)), 0.5, [0.5, 0.3, 0.2], rng.normal(size=(3, 2)), np.full((3, 2), 0.8))
    return mixture_problem(regress(vae), seed)


def blind(seed: int, *, K: int = 2, weights: Sequence[float] = (0.5, 0.5), distance: float = 4.0, keeps: int = 0) -> Problem:
    """The data do not tell which of two components a row is of; q keeps one of them."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(5, K))
    W[:, 0] = 0
    means = np.zeros((2, K))
    means[:, 0] = -distance, distance
    vae = mixture_model(W, 0.5, weights, means, np.ones((2, K)) * np.where(np.arange(K) == 0, 0.5, 1.0))
    return mixture_problem(keep(vae, W, 0.5, means[keeps], numpy(vae.prior().stddevs[keeps])), seed)


def keep(vae: LatentModel, W: Array, stddev: float, mean: Array, widths: Array) -> LatentModel:
    """Set q to what would be the posterior if the prior were one normal component."""
    covariance = np.linalg.inv(np.diag(1 / widths**2) + W.T @ W / stddev**2)
    slope = covariance @ W.T / stddev**2
    set_encoder(vae, slope, mean - slope @ W @ mean, np.sqrt(np.diag(covariance)))
    return vae


def covered(seed: int) -> Problem:
    """The same two components, with a q as wide as both."""
    problem = blind(seed, distance=2.0)
    layer: Any = problem.vae.inference.network[0]
    with torch.no_grad():
        layer.bias[0], layer.bias[2] = 0.0, float(code(np.array(2.2)))
    return problem


def nested(seed: int, *, K: int = 6, narrow: float = 0.05, share: float = 0.5, of_narrow: bool = False) -> Problem:
    """A wide component and a narrow one elsewhere, between which the data decide little; q keeps the wide one."""
    rng = np.random.default_rng(seed)
    W = 0.3 * rng.normal(size=(6, K))
    means = np.stack([np.zeros(K), np.full(K, 1.5)])
    vae = mixture_model(W, 1.0, [1 - share, share], means, np.stack([np.ones(K), np.full(K, narrow)]))
    keep(vae, W, 1.0, means[0], np.ones(K))
    return mixture_problem(vae, seed, rows_of(vae, 1, seed) if of_narrow else None)


def swallowed(seed: int, *, K: int = 6, narrow: float = 0.05, share: float = 0.02, size: float = 0.8, D: int = 6) -> Problem:
    """A rare and narrow component explains rows better than the wide one, in the middle of whose posterior it lies."""
    rng = np.random.default_rng(seed)
    W = size * rng.normal(size=(D, K))
    means = np.stack([np.zeros(K), 0.7 * rng.normal(size=K)])
    vae = mixture_model(W, 1.0, [1 - share, share], means, np.stack([np.ones(K), np.full(K, narrow)]))
    keep(vae, W, 1.0, means[0], np.ones(K))
    return mixture_problem(vae, seed, rows_of(vae, 1, seed))


def rows_of(vae: LatentModel, component: int, seed: int, N: int = 40) -> Tensor:
    """Rows of one component only."""
    noise, p = torch.Generator().manual_seed(seed), vae.prior()
    z = p.means[component] + p.stddevs[component] * torch.randn(N, p.means.shape[1], generator=noise)
    drawn: Tensor = vae.generative(z.detach()).sample(generator=noise)
    return drawn


def many(seed: int, *, K: int = 4, M: int = 12, width: float = 0.1, stddev: float = 1.0) -> Problem:
    """Many narrow components, of which the data leave several."""
    rng = np.random.default_rng(seed)
    W, means = rng.normal(size=(4, K)), 2 * rng.normal(size=(M, K))
    return mixture_problem(regress(mixture_model(W, stddev, [1 / M] * M, means, np.full((M, K), width))), seed)


def rare(seed: int, *, share: float = 0.02) -> Problem:
    """All rows are of a rare component, which an encoder that has hardly seen any puts beside the common one."""
    rng = np.random.default_rng(seed)
    W, K = 0.7 * rng.normal(size=(5, 3)), 3
    means = np.stack([np.zeros(K), np.full(K, 4.0)])
    vae = mixture_model(W, 0.5, [1 - share, share], means, np.full((2, K), 0.5))
    return mixture_problem(keep(vae, W, 0.5, means[0], np.full(K, 0.5)), seed, rows_of(vae, 1, seed))


def pseudo_inputs(seed: int) -> Problem:
    """The prior is a mixture of what the encoder says of twenty rows."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(5, 2))
    vae = affine_model(W, np.zeros(5), 0.5, prior={"name": "vamp", "components": 20})
    covariance = np.linalg.inv(np.eye(2) + W.T @ W / 0.25)
    slope = covariance @ W.T / 0.25
    set_affine(vae.inference.network[0], np.vstack([slope, 0 * slope]), np.concatenate([np.zeros(2), code(np.full(2, 0.6))]))
    inputs = rng.normal(size=(20, 2)) @ W.T
    with torch.no_grad():
        vae.prior.pseudo_inputs.copy_(torch.tensor(inputs))
    y = simulate(vae, seed=seed)[0]
    return Problem(vae, y, simulate(vae, seed=1000 + seed)[0], _by_encoder(vae, y))


def _by_encoder(vae: LatentModel, y: Tensor) -> Array:
    """log p(y) under that prior."""
    W, b, variance = affine_parts(vae)
    layer: Any = vae.inference.network[0]
    outputs = numpy(vae.prior.pseudo_inputs) @ numpy(layer.weight).T + numpy(layer.bias)
    means, raw = np.split(outputs, 2, axis=1)
    stddevs = np.exp(np.minimum(raw, 0)) + np.maximum(raw, 0)
    pairs = zip(means, stddevs, strict=True)
    parts = [normal_log_density(numpy(y) - b - W @ mean, W * stddev, variance) for mean, stddev in pairs]
    return np.asarray(logsumexp(np.stack(parts), axis=0) - np.log(len(parts)))


KINDS: dict[str, Kind] = {
    "mixture_close": close,
    "mixture_covered": covered,
    "mixture_blind": blind,
    "mixture_blind_minor": partial(blind, weights=(0.95, 0.05), keeps=1),
    "mixture_blind_major": partial(blind, K=4, weights=(0.7, 0.3), distance=6.0),
    "mixture_nested": nested,
    "mixture_nested_rare": partial(nested, share=0.02, of_narrow=True),
    "mixture_nested_wide": partial(nested, K=3, narrow=0.3),
    "mixture_swallowed": swallowed,
    "mixture_swallowed_often": partial(swallowed, share=0.2),
    "mixture_swallowed_2": partial(swallowed, K=2, narrow=0.02, share=0.1, size=2.0),
    "mixture_swallowed_deep": partial(swallowed, D=10, share=0.02, size=1.0),
    "mixture_swallowed_deeper": partial(swallowed, D=10, share=0.005, size=1.6, narrow=0.03),
    "mixture_swallowed_10": partial(swallowed, K=10, D=10, share=0.003),
    "mixture_swallowed_12": partial(swallowed, K=12, D=16, share=0.002, size=0.6, narrow=0.1),
    "mixture_many": many,
    "mixture_many_sharp": partial(many, K=6, width=0.03, stddev=2.0),
    "mixture_rare": rare,
    "mixture_vamp": pseudo_inputs,
}
