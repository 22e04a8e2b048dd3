"""Exact answers to test against, and the one false-alarm rate of all statistical tests.

A linear-Gaussian VAE, y = W z + b + noise, is probabilistic PCA: log p(y) is a multivariate normal density.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from vae import VAE, likelihoods
from vae.objectives import Objective
from vae.options.registry import LIKELIHOODS as REGISTRY

# A correct estimate is off by more than this many standard errors with probability 6e-5 (two-sided). With fixed seeds a test
# that passes once passes always, so this is the chance that a harmless change of the noise turns one test red.
SIGMAS = 4.0

BASIC: list[dict[str, Any]] = [  # for what takes long
    {"name": "gaussian", "variance": 0.3},
    {"name": "gaussian_learned"},
    {"name": "gaussian_per_dimension"},
    {"name": "bernoulli"},
]
LIKELIHOODS: list[dict[str, Any]] = [
    *BASIC,
    {"name": "gaussian_heteroscedastic"},
    {"name": "student_t", "min_degrees": 4.5},
    {"name": "log_normal"},
    {"name": "gamma"},
    {"name": "beta"},
    {"name": "zero_one_inflated_beta"},
    {"name": "categorical", "levels": 3},
    {"name": "ordinal", "levels": 4},
    {"name": "binomial", "trials": 16},
    {"name": "poisson"},
    {"name": "negative_binomial"},
    {"name": "zero_inflated_negative_binomial"},
    {"name": "discretized_logistic", "levels": 16},
    {"name": "continuous_bernoulli"},
]
TOGETHER: list[dict[str, Any]] = [{"name": "dirichlet_multinomial", "library": 30}]  # whose columns depend on each other
FEW = [
    {"name": "gaussian", "variance": 0.3},
    {"name": "gaussian_learned"},
    {"name": "gaussian_per_dimension"},
    {"name": "bernoulli"},
]


def within_error(samples: NDArray[np.floating] | Tensor, expected: float) -> bool:
    """Whether the mean of independent samples is ``expected`` within `SIGMAS` standard errors."""
    values = np.asarray(samples, dtype=np.float64)
    return bool(abs(values.mean() - expected) <= SIGMAS * values.std(ddof=1) / np.sqrt(len(values)))


class LinearGaussian:
    """A VAE whose log p(y) and posterior are known, with rows ``y`` drawn from it.

    Args:
        K: Latent dimensions.
        D: Columns.
        variance: sigma_y^2.
        widen: Factor on the posterior's standard deviations to make q; the means of q are exact.
        N: Rows.
        seed: Of weights and rows.
    """

    def __init__(self, K: int, D: int, variance: float, *, widen: float = 1.3, N: int = 6, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.W, self.b = rng.normal(size=(D, K)), rng.normal(size=D)
        self.variance = variance
        posterior = np.linalg.inv(np.eye(K) + self.W.T @ self.W / variance)
        gain = posterior @ self.W.T / variance
        likelihood = {"name": "gaussian", "variance": variance}
        self.vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=D, latent_dim=K, likelihood=likelihood).double()
        self.vae.generative.likelihood.get_buffer("variance").fill_(variance)  # in float64: 0.3 was rounded to float32
        set_affine(self.vae.generative.network[0], self.W, self.b)
        stddev = widen * np.sqrt(np.diag(posterior))
        of_stddev = np.where(stddev < 1, np.log(stddev), stddev - 1)
        slope, offset = np.vstack([gain, np.zeros_like(gain)]), np.concatenate([-gain @ self.b, of_stddev])
        set_affine(self.vae.inference.network[0], slope, offset)
        noise = rng.normal(size=(N, D)) * np.sqrt(variance)
        self.y = torch.tensor(rng.normal(size=(N, K)) @ self.W.T + self.b + noise)

    @property
    def log_likelihood(self) -> NDArray[np.floating]:
        """log p(y) per row."""
        return self.log_density(self.y)

    def log_density(self, y: Tensor) -> NDArray[np.floating]:
        """log p(y) of any rows."""
        covariance = self.W @ self.W.T + self.variance * np.eye(len(self.b))
        return np.atleast_1d(multivariate_normal(self.b, covariance).logpdf(y.numpy()))


def set_affine(layer: nn.Module, weight: NDArray[np.floating], bias: NDArray[np.floating]) -> None:
    """Make a linear layer this one."""
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def small_vae(likelihood: dict[str, Any], D: int = 4, K: int = 2, seed: int = 0, **settings: Any) -> VAE:
    """A nonlinear VAE in float64."""
    architecture = {"hidden": (7,), "activation": "tanh"}
    return VAE(architecture, architecture, data_dim=D, latent_dim=K, likelihood=likelihood, seed=seed, **settings).double()


def rows_for(likelihood: dict[str, Any], N: int = 20, D: int = 4, seed: int = 1) -> Tensor:
    """Rows that the likelihood is a density or probability of, float64."""
    rng = np.random.default_rng(seed)
    options = {key: value for key, value in likelihood.items() if key != "name"}
    support = REGISTRY[likelihood["name"]].build(likelihoods, D, **options).support
    largest = int(support.name.partition("..")[2]) if ".." in support.name else 12
    draws = {
        "real": lambda: rng.normal(size=(N, D)),
        "positive": lambda: rng.lognormal(size=(N, D)),
        "unit": lambda: rng.beta(2, 2, size=(N, D)),
        "closed unit": lambda: np.clip(rng.uniform(-0.3, 1.3, size=(N, D)), 0, 1),
        "binary": lambda: rng.integers(0, 2, size=(N, D)),
    }
    values = draws.get(support.name, lambda: rng.integers(0, largest + 1, size=(N, D)))()
    return torch.tensor(values, dtype=torch.float64)


def central_differences(function: Any, w: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Fourth-order central differences."""
    gradient = np.empty_like(w)
    for i in range(len(w)):
        shift = np.zeros_like(w)
        shift[i] = step
        near, far = function(w + shift) - function(w - shift), function(w + 2 * shift) - function(w - 2 * shift)
        gradient[i] = (8 * near - far) / (12 * step)
    return gradient


def gradients_of(model: LinearGaussian, of: Objective, seeds: int) -> np.ndarray:
    """Of so many draws of the noise, (seeds, parameters)."""
    model.vae.objective = of
    gradient = model.vae.make_objective(model.y)[1]
    w = model.vae.pack_weights().numpy()
    return np.stack([gradient(w, t) for t in range(seeds)])
