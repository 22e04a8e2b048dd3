"""Exact log-likelihoods: the closed form and quadrature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp

from tests.anchors import BASIC, LinearGaussian, rows_for, set_affine, small_vae
from tests.waves import Wave, WaveModel, crossing, random_wave
from vae import VAE
from vae.evidence import Exact, exact, exact_applies
from vae.evidence.integration import quadrature

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
        assert by_grid.log_likelihood.isfinite().all()
        np.testing.assert_allclose(by_grid.log_likelihood, model.log_likelihood, rtol=1e-9)


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


def right_or_refused(found: Exact, expected: Any) -> int:
    """How many rows have a value; each of them is right to 1e-6, and a reason is given exactly if some have none."""
    values = found.log_likelihood.numpy()
    missing = np.isnan(values)
    np.testing.assert_allclose(values[~missing], np.asarray(expected)[~missing], rtol=0, atol=1e-6)
    assert bool(found.reason) == missing.any()
    return int((~missing).sum())


@pytest.mark.parametrize(
    ("modes", "stddev", "angle"),
    [
        (40, 0.02, None),
        (40, 0.01, None),
        (40, 1e-4, None),
        (4, 0.02, 0.4),
        (4, 0.01, 0.4),
        pytest.param(6, 0.01, 0.0, marks=pytest.mark.slow),
    ],
)
def test_many_narrow_modes(modes: int, stddev: float, angle: float | None) -> None:
    """40 in one dimension, 16 and 36 in two, which no start of a search may find: all of them count."""
    model = WaveModel([crossing(modes)] * (1 if angle is None else 2), stddev, angle)
    values = [[0.3, -0.2][: len(model.waves)]]
    found = exact(model.vae, model.rows(values))
    assert right_or_refused(found, model.log_likelihood(values)) == 1


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(6))
def test_random_waves_in_one_dimension(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    model = WaveModel([random_wave(rng, activation)], 10 ** rng.uniform(-3, -0.5))
    values = model.waves[0](rng.normal(size=3))[:, None]
    assert right_or_refused(exact(model.vae, model.rows(values)), model.log_likelihood(values)) >= 2


@pytest.mark.parametrize(("activation", "seed"), [("tanh", 0), ("tanh", 2), ("relu", 0)])
def test_random_waves_in_two_dimensions(seed: int, activation: str) -> None:
    """Smooth ones have a value; those with kinks may have none."""
    rng = np.random.default_rng(seed)
    model = WaveModel([random_wave(rng, activation), random_wave(rng, activation)], 0.1, 0.4)
    values = [[wave(rng.normal(size=1))[0] for wave in model.waves]]
    count = right_or_refused(exact(model.vae, model.rows(values)), model.log_likelihood(values))
    assert count == 1 or activation == "relu"


@pytest.mark.parametrize("stddev", [0.1, 0.01])
def test_ridges_and_a_direction_without_effect(stddev: float) -> None:
    """One column of two latents: the posterior is as narrow as the noise one way, and as wide as the prior the other."""
    model = WaveModel([crossing(2)], stddev, 0.4, latent_dim=2)
    values = [[0.3], [5.0]]
    assert right_or_refused(exact(model.vae, model.rows(values)), model.log_likelihood(values)) == 2


@pytest.mark.parametrize(
    ("width", "angle"), [(0.1, None), (0.01, None), (0.001, None), pytest.param(0.1, 0.4, marks=pytest.mark.slow)]
)
def test_a_bump_between_all_points(width: float, angle: float | None) -> None:
    """Two steps so near each other that a grid sees nothing of either: hidden units tell where they are."""
    steps = np.array([1.234, 1.234 + width])
    model = WaveModel([Wave(steps, np.full(2, 20 / width), np.array([0.5, -0.5]))], 0.02, angle)
    values = [[1.0]]
    count = right_or_refused(exact(model.vae, model.rows(values)), model.log_likelihood(values))
    assert count == 1 or angle is not None


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("distance", [8.5, 9.2, 40.0, 150.0])
def test_posteriors_at_the_edge_of_the_prior(distance: float, K: int) -> None:
    """Outliers, log p(y) down to -20,000: the mass is where the prior has none."""
    model = LinearGaussian(K, 3, 0.01)
    y = torch.tensor(model.W @ np.full((K, 1), distance)).T + torch.tensor(model.b)
    found = quadrature.quadrature(model.vae, y, advance=lambda rows: None)
    np.testing.assert_allclose(found.log_likelihood, model.log_density(y), rtol=1e-9)


def test_a_narrow_component_of_the_prior() -> None:
    """1,000 times narrower than the other, by a sum over each in its own coordinates."""
    prior = {"name": "gaussian_mixture", "components": 2}
    model = WaveModel([crossing(4)], 0.3, prior=prior)
    with torch.no_grad():
        model.vae.prior.mean.copy_(torch.tensor([[0.0], [1.77]]))
        model.vae.prior.raw_stddev.copy_(torch.tensor([[0.0], [-7.0]]))
        p, noise = model.vae.prior(), torch.linspace(-9, 9, 20001, dtype=torch.float64)[:, None, None]
        z, y = p.means[:, 0] + p.stddevs[:, 0] * noise[..., 0], model.rows([[0.9], [-0.2]])
        scores = model.vae.generative(z[..., None, None]).log_prob(y)  # (points, components, rows)
        expected = (scores + p.log_weights[:, None] - noise.square() / 2).flatten(0, 1).logsumexp(dim=0)
    expected = expected + np.log(18 / 20000) - np.log(2 * np.pi) / 2
    assert right_or_refused(exact(model.vae, y), expected) == 2


def test_heavy_tails() -> None:
    """Whose log density has a peak as narrow as their scale."""
    model = WaveModel([crossing(6)], 1.0, likelihood={"name": "student_t"})
    with torch.no_grad():
        for parameter in model.vae.generative.likelihood.parameters():
            parameter.fill_(-6.0)
        u, y = torch.linspace(-12, 12, 1_000_001, dtype=torch.float64)[:, None], model.rows([[0.3], [-0.9], [7.0]])
        scores = [model.vae.generative(u).log_prob(row) + model.vae.prior().log_prob(u) for row in y]
    expected = torch.stack(scores).logsumexp(dim=1) + np.log(24e-6)
    assert right_or_refused(exact(model.vae, y), expected) == 3


@pytest.mark.parametrize("activation", ["tanh", "softplus", "silu", "gelu"])
@pytest.mark.parametrize("K", [1, 2])
def test_smooth_networks_have_a_value(K: int, activation: str) -> None:
    """Two hidden layers, weights twice as large as at first, against a fine grid."""
    network = {"hidden": [16, 16], "activation": activation}
    vae = VAE(network, network, data_dim=6, latent_dim=K, likelihood="gaussian_per_dimension").double()
    with torch.no_grad():
        for parameter in vae.generative.network.parameters():
            parameter.mul_(2)
        axis = torch.linspace(-8, 8, 801, dtype=torch.float64)
        z, y = torch.cartesian_prod(*[axis] * K).reshape(-1, 1, K), rows_for(BASIC[0], N=3, D=6)
        scores = vae.generative(z).log_prob(y) + vae.prior().log_prob(z)
    expected = scores.logsumexp(dim=0) + K * np.log(16 / 800)
    assert right_or_refused(exact(vae, y), expected) == 3


def test_what_does_not_settle_has_no_value_but_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few halvings, or too few cells: NaN and which of the two, not the last number."""
    vae, y = with_steep_decoder(BASIC[0], 2, 3.0), rows_for(BASIC[0], N=4)
    with monkeypatch.context() as patch:
        patch.setattr(quadrature, "LEVELS", 2)
        found = exact(vae, y)
        assert found.log_likelihood.isnan().all()
        assert found.reason == "for 4 of 4 rows two sums over the smallest cells still differed by more than 1e-08"
    monkeypatch.setattr(quadrature, "CELLS", 10)
    found = exact(vae, y)
    assert found.log_likelihood.isnan().all()
    assert found.reason == "for 4 of 4 rows p(y, z) has details in more than 10 cells"


def test_where_it_does_not_apply() -> None:
    """Three latent dimensions and hidden layers, or no Gaussian."""
    for options, hidden in (({"name": "gaussian"}, [7]), ({"name": "bernoulli"}, [])):
        vae = VAE({"hidden": hidden}, {"hidden": [7]}, data_dim=4, latent_dim=3, likelihood=options)
        assert not exact_applies(vae)
        with pytest.raises(ValueError, match=r"an exact log-likelihood needs latent_dim 1 or 2, or .* latent_dim 3"):
            exact(vae, rows_for(options))
    assert exact_applies(small_vae({"name": "bernoulli"}, K=1))
