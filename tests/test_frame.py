"""The axes and scales by which chains move: exact where the posterior is normal, and safe where nothing is."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.anchors import LinearGaussian, set_affine, small_vae
from vae.distributions.vectors import DiagonalNormal
from vae.evidence import Annealing, annealed_importance_sampling, tune_step_sizes
from vae.evidence.annealing import path as paths
from vae.evidence.annealing import tuning
from vae.evidence.annealing.path import Frame, Path, frame_of, path_of
from vae.model.posteriors import FullCovarianceGaussian

STARTS = ["posterior", "prior"]


def misled(K: int, D: int, variance: float, *, widen: float, away: float, **settings: Any) -> LinearGaussian:
    """A linear-Gaussian model whose q is too wide or too narrow, and lies away from the posterior."""
    model = LinearGaussian(K, D, variance, widen=widen, **settings)
    with torch.no_grad():
        model.vae.inference.network[0].bias[:K] += away
    return model


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("widen", "away"), [(1.0, 0.0), (0.01, 0.5), (30.0, 2.0)])
def test_the_frame_of_a_normal_posterior_is_exact(start: Any, widen: float, away: float) -> None:
    """Its precision 1 + W'W / sigma^2 and its mean, whatever q says."""
    model = misled(3, 6, 0.01, widen=widen, away=away)
    with torch.no_grad():
        path = path_of(model.vae, model.y, start)
        frame = path.frame
    precision = np.eye(3) + model.W.T @ model.W / model.variance
    inverse = torch.linalg.inv(frame.axes)
    found = inverse.mT @ frame.precision.diag_embed() @ inverse
    np.testing.assert_allclose(found, np.broadcast_to(precision, found.shape), rtol=1e-6, atol=1e-6 * precision.max())
    started = inverse.mT @ inverse
    torch.testing.assert_close(started, path.start.variance.reciprocal().expand_as(path.q.mean).diag_embed())
    mean = np.linalg.solve(precision, model.W.T @ (model.y.numpy() - model.b).T / model.variance).T
    at_mode = path.start.mean + torch.einsum("nij,nj->ni", frame.axes, frame.mode)
    np.testing.assert_allclose(at_mode, mean, atol=1e-6)


def test_a_start_with_full_covariance_is_white_in_its_frame() -> None:
    vae = small_vae({"name": "gaussian"}, posterior={"name": "full_covariance_gaussian"})
    assert isinstance(vae.inference.posterior, FullCovarianceGaussian)
    with torch.no_grad():
        path = path_of(vae, torch.randn(4, 4, dtype=torch.float64), "posterior")
        path.frame  # noqa: B018
    inverse = torch.linalg.inv(path.frame.axes)
    torch.testing.assert_close(inverse @ path.q.covariance_matrix @ inverse.mT, torch.eye(2).double().expand(4, -1, -1))


def test_without_finite_gradients_the_variances_of_q_count() -> None:
    """And where the density is not concave, no scale is wider than the prior's."""
    path, frame = _path_of_gradients(lambda z: z * torch.tensor([math.nan, 1.0]))  # which grows away from the centre
    torch.testing.assert_close(frame.precision, path.q.variance.reciprocal())
    _, frame = _path_of_gradients(lambda z: 0 * z)
    torch.testing.assert_close(frame.precision, torch.ones(3, 2))
    _, frame = _path_of_gradients(lambda z: 9 * z)
    torch.testing.assert_close(frame.precision, torch.full((3, 2), 9.0))
    assert frame.mode.isfinite().all()


def _path_of_gradients(gradient: Any) -> tuple[Path, Frame]:
    q, prior = DiagonalNormal(torch.ones(3, 2), torch.full((3, 2), 0.5)), DiagonalNormal(torch.zeros(3, 2), torch.ones(3, 2))
    path = SimpleNamespace(
        q=q,
        prior=prior,
        start=prior,
        centre=q.mean,
        whitening=(prior.mean, prior.stddev.diag_embed()),
        at=lambda z: SimpleNamespace(joint_gradient=gradient(z)),
    )
    return cast("Path", path), frame_of(cast("Path", path))


@pytest.mark.parametrize("K", [1, 2, 8])
@pytest.mark.parametrize("leapfrog_steps", [2, 5])
def test_the_rate_aimed_at_is_that_of_a_quarter_period(K: int, leapfrog_steps: int) -> None:
    """Simulated on a standard normal density; the formula's approximation is better than 0.02."""
    h, random = tuning._quarter_period(leapfrog_steps), np.random.default_rng(0)
    z, p = random.normal(size=(2, 50_000, K))
    energy = (z**2 + p**2).sum(axis=1) / 2
    for _ in range(leapfrog_steps):
        p = p - h / 2 * z
        z = z + h * p
        p = p - h / 2 * z
    accepted = np.minimum(1, np.exp(energy - (z**2 + p**2).sum(axis=1) / 2)).mean()
    assert tuning._target(K, leapfrog_steps) == pytest.approx(accepted, abs=0.02)


def test_sharp_posteriors_are_reached_from_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four latents that all but do the same, noise of a hundredth, and q for another model: within a nat.

    Planted: axes and scales by the standard deviations of q, by which chains crawl along the valley.
    """
    model = misled(4, 10, 1e-4, widen=1.0, away=0.0, N=10)
    model.W = model.W @ (0.05 * np.eye(4) + np.ones((4, 4)) / 4)
    set_affine(model.vae.generative.network[0], model.W, model.b)
    model.y = cast("Tensor", model.vae.generate(10, seed=1))

    def error() -> float:
        annealing = tune_step_sizes(model.vae, model.y, annealing=Annealing(500, start="prior"))
        found = annealed_importance_sampling(model.vae, model.y, 16, annealing=annealing).log_likelihood.numpy()
        return float((found - model.log_likelihood).mean())

    good = error()
    monkeypatch.setattr(paths, "frame_of", _by_q)
    assert abs(good) < 0.5
    assert error() < -5


def _by_q(path: Path) -> Frame:
    narrower = (path.start.variance / path.q.variance).expand_as(path.q.mean)
    return Frame(path.start.stddev.expand_as(narrower).diag_embed(), narrower, torch.zeros_like(narrower))
