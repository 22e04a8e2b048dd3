"""The importance-weighted objectives: values by hand and by quadrature, gradients, and what DReG changes in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tests.anchors import LinearGaussian, central_differences, gradients_of, rows_for, small_vae, within_error
from vae import ELBO
from vae.distributions.noise import generator
from vae.objectives import IWAE, PIWAE, DReG, StickingTheLanding, Terms

NORMAL = {"name": "gaussian"}


@pytest.mark.parametrize("of", [IWAE(4), PIWAE(3, averages=2)], ids=lambda of: type(of).__name__)
def test_gradients_equal_central_differences(of: IWAE) -> None:
    vae = small_vae(NORMAL)
    vae.objective = of
    objective, gradient = vae.make_objective(rows_for(NORMAL))
    w = vae.pack_weights().numpy()
    expected = central_differences(objective, w, 1e-3)
    assert np.linalg.norm(gradient(w) - expected) < 1e-6 * np.linalg.norm(expected)


def log_weights(model: LinearGaussian, draws: int) -> np.ndarray:
    """log p(y|z) + log p(z) - log q(z|y) of the draws that an objective makes, by scipy, (draws, N)."""
    z = Terms(model.vae, model.y, draws, generator(0, "x")).z.detach().numpy()
    mean, variance = (x.numpy() for x in model.vae.infer(model.y))
    of_data = model.vae.generative(torch.from_numpy(z)).mean.detach().numpy()
    log_p = norm(of_data, np.sqrt(model.variance)).logpdf(model.y.numpy()).sum(-1) + norm.logpdf(z).sum(-1)
    return log_p - norm(mean, np.sqrt(variance)).logpdf(z).sum(-1)


def test_values_by_hand() -> None:
    model = LinearGaussian(2, 3, 0.5, widen=1.4)
    weights = np.exp(log_weights(model, 6))
    iwae, dreg, piwae = (of(model.vae, model.y, generator(0, "x")) for of in (IWAE(6), DReG(6), PIWAE(3, averages=2)))
    expected = np.log(weights.mean(axis=0))
    averaged = (np.log(weights[:3].mean(axis=0)) + np.log(weights[3:].mean(axis=0))) / 2
    for value, bound in ((iwae, expected), (dreg, expected), (piwae, averaged)):
        np.testing.assert_allclose(value.bound.detach(), bound, rtol=1e-10)
        np.testing.assert_allclose(-value.loss.detach(), bound, rtol=1e-10)
        np.testing.assert_allclose(value.elbo.detach(), np.log(weights).mean(axis=0), rtol=1e-10)


def test_one_sample_is_the_elbo() -> None:
    vae, y = small_vae(NORMAL), rows_for(NORMAL)
    elbo = ELBO(1)(vae, y, generator(0, "x"))
    for of in (IWAE(1), DReG(1), PIWAE(1, averages=1)):
        value = of(vae, y, generator(0, "x"))
        torch.testing.assert_close(value.loss, elbo.loss)
        torch.testing.assert_close(value.bound, elbo.elbo)
    several, averaged = ELBO(8)(vae, y, generator(0, "x")), PIWAE(1, averages=8)(vae, y, generator(0, "x"))
    torch.testing.assert_close(averaged.loss, several.loss)


def test_two_samples_by_quadrature() -> None:
    """L_2 = E log((w_1 + w_2) / 2) over both draws, by Gauss-Hermite; the objective's mean at 6e-5."""
    model = LinearGaussian(1, 4, 0.3, widen=1.5)
    nodes, shares = np.polynomial.hermite_e.hermegauss(60)
    mean, variance = (x.numpy()[:, 0] for x in model.vae.infer(model.y))
    z = torch.from_numpy(mean[None] + np.sqrt(variance)[None] * nodes[:, None])[..., None]
    q = norm(mean, np.sqrt(variance)).logpdf(z.numpy()[..., 0])
    with torch.no_grad():
        log_w = model.vae.generative(z).log_prob(model.y).numpy() + norm.logpdf(z.numpy()[..., 0]) - q
    pairs = np.logaddexp(log_w[:, None], log_w[None]) - np.log(2)
    exact = np.einsum("i,j,ijn->n", shares, shares, pairs).mean() / shares.sum() ** 2
    with torch.no_grad():
        found = torch.stack([IWAE(2)(model.vae, model.y, generator(s, "x")).bound.mean() for s in range(300)])
        below = torch.stack([ELBO(2)(model.vae, model.y, generator(s, "x")).elbo.mean() for s in range(300)])
    assert within_error(found, exact)
    assert below.mean() + 0.01 < exact < model.log_likelihood.mean()


def test_the_bound_is_log_p_where_q_is_the_posterior() -> None:
    model = LinearGaussian(1, 4, 0.3, widen=1.0)
    for of in (IWAE(5), DReG(5), PIWAE(2, averages=3)):
        np.testing.assert_allclose(of(model.vae, model.y, generator(3, "x")).bound.detach(), model.log_likelihood, rtol=1e-10)


def of_inference(model: LinearGaussian) -> int:
    """How many of the packed weights, which come first, are the inference network's."""
    return sum(weights.numel() for weights in model.vae.unpack_weights(model.vae.pack_weights())[0].values())


def test_dreg_changes_the_inference_networks_gradient_only() -> None:
    """And that not in expectation: in three random directions at 6e-5 each, over common noise; false-alarm rate 1.8e-4."""
    model = LinearGaussian(2, 3, 0.5, widen=1.4)
    dreg, plain = (gradients_of(model, of, 1500) for of in (DReG(4), IWAE(4)))
    split = of_inference(model)
    np.testing.assert_allclose(dreg[:, split:], plain[:, split:], rtol=1e-9, atol=1e-12)
    difference = (dreg - plain)[:, :split]
    for projected in (difference @ np.random.default_rng(0).normal(size=(split, 3))).T:
        assert projected.std() > 0.01
        assert within_error(torch.from_numpy(projected), 0.0)


def test_dreg_varies_less_near_the_posterior() -> None:
    """Not at all where q is the posterior, draw by draw; with q 5 % too wide by a tenth of the variance at most."""
    for widen, share in ((1.0, 1e-20), (1.05, 0.1)):
        model = LinearGaussian(1, 4, 0.3, widen=widen)
        dreg, plain = (gradients_of(model, of, 60)[:, : of_inference(model)] for of in (DReG(5), IWAE(5)))
        assert plain.var(axis=0).min() > 1e-4
        assert (dreg.var(axis=0) < share * plain.var(axis=0)).all()


def test_dreg_of_one_sample_is_sticking_the_landing() -> None:
    """In the inference network's gradient and the others'."""
    model = LinearGaussian(2, 3, 0.5, widen=1.4)
    dreg, sticking = (gradients_of(model, of, 5) for of in (DReG(1), StickingTheLanding(1)))
    np.testing.assert_allclose(dreg, sticking, rtol=1e-9, atol=1e-12)


def test_more_samples_give_a_better_bound_of_the_same_model() -> None:
    """L_1 <= L_5 <= L_50 <= log p(y), each mean over 200 repeats and by far more than its error."""
    model = LinearGaussian(2, 3, 0.5, widen=2.0)
    with torch.no_grad():
        repeats = [[IWAE(K)(model.vae, model.y, generator(s, "x")).bound.mean() for s in range(200)] for K in (1, 5, 50)]
    bounds = np.array(repeats).mean(axis=1)
    assert bounds[0] + 0.1 < bounds[1] < bounds[1] + 0.02 < bounds[2] < model.log_likelihood.mean()


@pytest.mark.parametrize("of", [IWAE(5), DReG(5), PIWAE(3, averages=2)], ids=lambda of: type(of).__name__)
def test_epochs_are_compared_by_the_bound(of: Any) -> None:
    vae, y = small_vae(NORMAL), rows_for(NORMAL)
    vae.objective = of
    settings = {"max_epochs": 8, "batch_size": len(y), "accelerator": "cpu", "precision": "64-true", "progress": False}
    vae.fit(y, validation=y, learning_rate=0.2, **settings)
    bounds = [row["valid_bound"] for row in vae.history.rows]
    assert of(vae, y, generator(0, "valid", 0, 0)).bound.mean().item() == pytest.approx(max(bounds))
    for row in vae.history.rows:
        assert row["valid_loss"] == pytest.approx(-row["valid_bound"])
        assert row["valid_bound"] > row["valid_elbo"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: IWAE(0), "samples must be at least 1; got 0"),
        (lambda: DReG(-1), "samples must be at least 1; got -1"),
        (lambda: PIWAE(5, averages=0), "averages must be at least 1; got 0"),
    ],
)
def test_bad_options_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
