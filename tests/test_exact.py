"""Exact log-likelihoods: the closed form and quadrature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp

from tests.anchors import BASIC, LinearGaussian, rows_for, set_affine, small_vae
from vae import VAE
from vae.evidence import exact, exact_applies, quadrature

SIZES = [(1, 3, 0.5), (2, 5, 1.0), (2, 30, 0.001), (1, 50, 1e-4), (4, 6, 2.0)]


@pytest.mark.parametrize(("K", "D", "variance"), SIZES)
def test_closed_form_and_quadrature_of_linear_gaussian_models(K: int, D: int, variance: float) -> None:
    """Down to posteriors a hundred times narrower than the prior."""
    model = LinearGaussian(K, D, variance)
    found = exact(model.vae, model.y)
    assert (found.method, found.reason) == ("closed form", "")
    np.testing.assert_allclose(found.log_likelihood, model.log_likelihood, rtol=1e-9)
    if K <= 2:
        by_grid = quadrature.quadrature(model.vae, model.y, advance=lambda rows: None)
        np.testing.assert_allclose(by_grid, model.log_likelihood, rtol=1e-9)


def test_float32_models_are_computed_in_float64() -> None:
    """A model that came from training; its weights are what they are, but nothing is lost on the way."""
    model = LinearGaussian(2, 5, 0.5)
    expected = exact(model.vae, model.y).log_likelihood
    single = exact(model.vae.float(), model.y.float()).log_likelihood
    assert single.dtype == torch.float64
    np.testing.assert_allclose(single, expected, rtol=1e-5)


def with_steep_decoder(options: dict[str, Any], K: int, factor: float) -> VAE:
    """A nonlinear model with its generative weights multiplied: narrow, curved, sometimes several modes."""
    vae = small_vae(options, K=K)
    with torch.no_grad():
        for parameter in vae.generative.network.parameters():
            parameter.mul_(factor)
    return vae


@pytest.mark.parametrize("options", BASIC, ids=lambda options: options["name"])
def test_one_dimension_against_scipy(options: dict[str, Any]) -> None:
    """Adaptive integration of a curved decoder's joint density, to 1e-7."""
    vae, y = with_steep_decoder(options, 1, 3.0), rows_for(options, N=4)
    found = exact(vae, y)
    assert (found.method, found.reason) == ("quadrature", "")
    for n in range(4):

        def joint(z: float, n: int = n) -> float:
            point = torch.tensor([[z]], dtype=torch.float64)
            with torch.no_grad():
                value = vae.generative(point).log_prob(y[n]) + vae.prior().log_prob(point)
            return float((value - found.log_likelihood[n]).exp())

        integral, _ = quad(joint, -9, 9, limit=500, epsabs=1e-10, points=list(np.linspace(-4, 4, 41)))
        assert integral == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("options", BASIC[2:], ids=lambda options: options["name"])
def test_two_dimensions_against_a_fine_grid(options: dict[str, Any]) -> None:
    vae, y = with_steep_decoder(options, 2, 3.0), rows_for(options, N=4)
    axis = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)[:, None]
    with torch.no_grad():
        parts = [vae.generative(some).log_prob(y) + vae.prior().log_prob(some) for some in z.split(100_000)]
    expected = logsumexp(torch.cat(parts).numpy(), axis=0) + 2 * np.log(16 / 1000)
    np.testing.assert_allclose(exact(vae, y).log_likelihood, expected, atol=1e-7)


@pytest.mark.parametrize("variance", [1.0, 1e-4, 1e-7])
@pytest.mark.parametrize("K", [1, 2])
def test_separate_modes_are_found(K: int, variance: float) -> None:
    """The mean is 10 |z_1|, 10 z_2: two modes, which a coarse grid cannot see where they are narrow. log 2 above one mode."""
    likelihood = {"name": "gaussian", "variance": variance}
    folded = VAE({"hidden": [2 * K], "activation": "relu"}, {"hidden": []}, data_dim=K, latent_dim=K, likelihood=likelihood)
    straight = VAE({"hidden": []}, {"hidden": []}, data_dim=K, latent_dim=K, likelihood=likelihood)
    signs = np.vstack([np.eye(K), -np.eye(K)])
    set_affine(folded.generative.network[0], signs, np.zeros(2 * K))
    set_affine(folded.generative.network[2], 10 * np.hstack([np.eye(K), np.diag([1.0, -1.0][:K])]), np.zeros(K))
    set_affine(straight.generative.network[0], 10 * np.eye(K), np.zeros(K))
    y = torch.tensor([[15.0, 7.0][:K]], dtype=torch.float64)
    found = exact(folded.double(), y).log_likelihood - exact(straight.double(), y).log_likelihood
    assert found.item() == pytest.approx(np.log(2), abs=1e-6)


def test_what_does_not_settle_has_no_value_but_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids too coarse for the posterior: NaN and the reason, not the last number."""
    vae, y = with_steep_decoder(BASIC[0], 2, 3.0), rows_for(BASIC[0], N=4)
    monkeypatch.setitem(quadrature.LEVELS, 2, [(4.0, 2.0), (2.0, 1.0)])
    found = exact(vae, y)
    assert found.log_likelihood.isnan().all()
    assert found.reason == "for 4 of 4 rows the sums over the finest grids still differed by more than 1e-8"


def test_where_it_does_not_apply() -> None:
    """Three latent dimensions and hidden layers, or no Gaussian."""
    for options, hidden in (({"name": "gaussian"}, [7]), ({"name": "bernoulli"}, [])):
        vae = VAE({"hidden": hidden}, {"hidden": [7]}, data_dim=4, latent_dim=3, likelihood=options)
        assert not exact_applies(vae)
        with pytest.raises(ValueError, match=r"an exact log-likelihood needs latent_dim 1 or 2, or .* latent_dim 3"):
            exact(vae, rows_for(options))
    assert exact_applies(small_vae({"name": "bernoulli"}, K=1))
