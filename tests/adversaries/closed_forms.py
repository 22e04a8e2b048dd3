"""log p(y) of affine decoders with Gaussian noise, under a normal prior or a mixture of normals."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from tests.adversaries.problem import Array
from vae.model.latent_model import LatentModel


def affine_log_likelihood(vae: LatentModel, y: Tensor) -> Array:
    """Of a standard normal prior."""
    W, b, variance = affine_parts(vae)
    return normal_log_density(numpy(y) - b, W, variance)


def mixture_log_likelihood(vae: LatentModel, y: Tensor) -> Array:
    """Of a mixture of normals as prior: of each component m, y is normal with mean W mean_m + b."""
    W, b, variance = affine_parts(vae)
    log_weights, means, stddevs = mixture_parts(vae)
    parts = [normal_log_density(numpy(y) - b - W @ m, W * s, variance) for m, s in zip(means, stddevs, strict=True)]
    return np.asarray(logsumexp(log_weights[:, None] + np.stack(parts), axis=0))


def normal_log_density(y: Array, W: Array, variance: float) -> Array:
    """Of rows y (N, D) under N(0, W W' + variance I), by singular values: exact however small the variance."""
    U, d, _ = np.linalg.svd(W)
    spread = variance + np.concatenate([d**2, np.zeros(len(W))])[: len(W)]
    return np.asarray(-0.5 * ((y @ U) ** 2 / spread + np.log(2 * np.pi * spread)).sum(axis=-1))


def affine_parts(vae: LatentModel) -> tuple[Array, Array, float]:
    """W, b and the noise's variance, as the model holds them."""
    layer: Any = vae.generative.network[0]
    return numpy(layer.weight), numpy(layer.bias), float(vae.generative.likelihood.get_buffer("variance").double())


def mixture_parts(vae: LatentModel) -> tuple[Array, Array, Array]:
    """Log weights (M,), means and standard deviations (M, K) of a prior `gaussian_mixture`."""
    raw = numpy(vae.prior.raw_stddev)
    return log_softmax(numpy(vae.prior.logits)), numpy(vae.prior.mean), np.exp(np.minimum(raw, 0)) + np.maximum(raw, 0)


def numpy(of: Tensor) -> Array:
    """As float64."""
    return np.asarray(of.detach().double().numpy())
