"""The lecture's terms, the objective, its gradient, and that training minimises just that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime, minimize

from tests.anchors import (
    BASIC,
    LIKELIHOODS,
    LinearGaussian,
    central_differences,
    gradients_of,
    rows_for,
    small_vae,
    within_error,
)
from vae import ELBO, VAE, objectives
from vae.distributions.noise import generator
from vae.objectives import BetaELBO, FreeBits, StickingTheLanding
from vae.settings import OBJECTIVES
from vae.training.fit import Fit
from vae.training.rows.batches import Batches

by_name = pytest.mark.parametrize("options", BASIC, ids=lambda o: o["name"])
OTHERS = [options for options in LIKELIHOODS if options not in BASIC]
CASES = [(options, kl, S) for options in BASIC for kl in ("monte_carlo", "closed_form") for S in (1, 3)]
CASES += [(options, "monte_carlo", 1) for options in OTHERS]
NORMAL = {"name": "gaussian"}
OWN_GRADIENT = [
    BetaELBO(2, "closed_form", beta=4.0),
    BetaELBO(2, "monte_carlo", beta=0.5),
    FreeBits(2, "closed_form", nats=0.3),
    FreeBits(3, "monte_carlo", nats=0.5, group=2),
]


@pytest.mark.parametrize(("options", "kl", "S"), CASES, ids=lambda of: of["name"] if isinstance(of, dict) else str(of))
def test_gradient_equals_central_differences(options: dict[str, Any], kl: Any, S: int) -> None:
    vae = small_vae(options)
    vae.objective = ELBO(kl=kl)
    objective, gradient = vae.make_objective(rows_for(options), S=S)
    w = vae.pack_weights().numpy()
    expected = central_differences(objective, w, 1e-3)
    error = np.linalg.norm(gradient(w) - expected) / np.linalg.norm(expected)
    assert error < 1e-6
    assert not np.allclose(gradient(w, t=1), gradient(w, t=0))


@pytest.mark.parametrize("of", OWN_GRADIENT, ids=lambda of: f"{type(of).__name__}-{of.kl}")
def test_other_gradients_equal_central_differences(of: ELBO) -> None:
    vae = small_vae(NORMAL)
    vae.objective = of
    objective, gradient = vae.make_objective(rows_for(NORMAL))
    w = vae.pack_weights().numpy()
    expected = central_differences(objective, w, 1e-3)
    assert np.linalg.norm(gradient(w) - expected) < 1e-6 * np.linalg.norm(expected)


def test_beta_weighs_the_kl_and_the_elbo_is_told_apart() -> None:
    vae, y = small_vae(NORMAL), rows_for(NORMAL)
    plain, weighed = (of(vae, y, generator(0, "x")) for of in (ELBO(2), BetaELBO(2, beta=3.0)))
    torch.testing.assert_close(weighed.loss, 3 * plain.kl - plain.reconstruction)
    assert torch.equal(weighed.elbo, plain.elbo)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [4.0, 4.0, 4.0, 4.0, 4.0, 4.0]),
        ("linear", [0.0, 1.0, 2.0, 4.0, 4.0, 4.0]),
        ("cyclic", [0.0, 2.0, 4.0, 0.0, 4.0, 4.0]),
    ],
)
def test_beta_follows_its_schedule(schedule: Any, expected: list[float]) -> None:
    """After 0, 2, 4, 8 and 15 epochs of periods of 8, and after training."""
    of = BetaELBO(beta=4.0, schedule=schedule, epochs=8)
    assert [of.weight(epoch) for epoch in (0, 2, 4, 8, 15, float("inf"))] == expected


@pytest.mark.parametrize("group", [1, 2, 3])
def test_free_bits_by_hand(group: int) -> None:
    """Three latent dimensions, whose KLs are -log s + (s^2 + m^2 - 1) / 2 for the means m and standard deviations s of q."""
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=2, latent_dim=3, likelihood=NORMAL).double()
    y = rows_for(NORMAL)[:, :2]
    m, variance = (x.numpy() for x in vae.infer(y))
    kl = (0.5 * (variance + m**2 - 1 - np.log(variance))).mean(axis=0)
    groups = [kl[first : first + group].sum() for first in range(0, 3, group)]
    nats = float(np.mean(groups))
    value = FreeBits(1, "closed_form", nats=nats, group=group)(vae, y, generator(0, "x"))
    expected = sum(max(nats, part) for part in groups)
    np.testing.assert_allclose((value.loss + value.reconstruction).detach(), expected, rtol=1e-12)
    torch.testing.assert_close(value.elbo, value.reconstruction - value.kl)


def test_sticking_the_landing_is_unbiased() -> None:
    """Its value is the sampled ELBO's; the mean of the two gradients' differences over common noise is 0.

    In three random directions, at 6e-5 each: false-alarm rate 1.8e-4. Were the path through log q cut too, each would be off.
    """
    model = LinearGaussian(2, 3, 0.5, widen=1.4)
    plain, sticking = (of(model.vae, model.y, generator(0, "x")) for of in (ELBO(3), StickingTheLanding(3)))
    torch.testing.assert_close(sticking.loss, plain.loss)
    difference = gradients_of(model, StickingTheLanding(), 500) - gradients_of(model, ELBO(), 500)
    directions = np.random.default_rng(0).normal(size=(difference.shape[1], 3))
    for projected in (difference @ directions).T:
        assert projected.std() > 0
        assert within_error(torch.from_numpy(projected), 0.0)


def test_sticking_the_landing_has_no_variance_at_the_posterior() -> None:
    """The inference network's gradient is 0 where q is the posterior, draw by draw; the plain one's is not."""
    model = LinearGaussian(1, 4, 0.3, widen=1.0)
    of_inference = len(
        torch.cat([weights.reshape(-1) for weights in model.vae.unpack_weights(model.vae.pack_weights())[0].values()])
    )
    sticking, plain = (gradients_of(model, of, 20)[:, :of_inference] for of in (StickingTheLanding(), ELBO()))
    assert np.abs(sticking).max() < 1e-12
    assert plain.std(axis=0).min() > 0.01


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_logs_the_true_elbo(name: str) -> None:
    """And the bound that epochs are compared by, which is the loss only where nothing else is added."""
    vae, y = small_vae(NORMAL), rows_for(NORMAL)
    vae.objective = OBJECTIVES[name].build(objectives, **({"beta": 5.0, "schedule": "linear"} if name == "beta_elbo" else {}))
    settings = {"max_epochs": 3, "batch_size": 8, "accelerator": "cpu", "precision": "64-true", "progress": False}
    vae.fit(y, validation=y, learning_rate=0.01, **settings)
    for row in vae.history.rows:
        for split in ("train", "valid"):
            assert row[f"{split}_elbo"] == pytest.approx(row[f"{split}_reconstruction"] - row[f"{split}_kl"])
            assert (row[f"{split}_loss"] == pytest.approx(-row[f"{split}_bound"])) == (name not in ("beta_elbo", "free_bits"))
            assert (row[f"{split}_elbo"] < row[f"{split}_bound"]) == (name in ("iwae", "dreg", "piwae"))
    assert vae.log_likelihood(y, 10, estimator="importance").isfinite().all()


def test_objective_accepts_the_lectures_variance() -> None:
    model = LinearGaussian(1, 3, 0.5)
    own, given = (model.vae.make_objective(model.y, v, S=4)[0] for v in (None, 0.5))
    other = model.vae.make_objective(model.y, 0.7, S=4)[0]
    w = model.vae.pack_weights().numpy()
    assert own(w) == given(w) != other(w)
    with pytest.raises(ValueError, match="y_var must be greater than 0; got -1"):
        model.vae.make_objective(model.y, -1)
    with pytest.raises(ValueError, match="y_var needs the likelihood 'gaussian'; this one is 'bernoulli'"):
        small_vae({"name": "bernoulli"}).make_objective(rows_for({"name": "bernoulli"}), 1.0)


def test_numpy_in_numpy_out_and_tensor_in_tensor_out() -> None:
    vae = small_vae({"name": "gaussian"})
    objective, gradient = vae.make_objective(rows_for({"name": "gaussian"}))
    w = vae.pack_weights()
    assert isinstance(objective(w), torch.Tensor)
    assert isinstance(gradient(w.numpy()), np.ndarray)
    assert objective(w).item() == float(objective(w.numpy()))


def record(vae: VAE, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[torch.Tensor]]:
    """The loss and the gradient of the steps to come."""
    losses: list[float] = []
    gradients: list[torch.Tensor] = []
    step = Fit._step

    def recorded(self: Fit, loss: torch.Tensor, *others: Any) -> None:
        losses.append(loss.mean().item())
        step(self, loss, *others)

    def gradient(self: Fit) -> None:
        gradients.append(torch.cat([p.grad.reshape(-1).clone() for p in vae.parameters() if p.grad is not None]))

    monkeypatch.setattr(Fit, "_step", recorded)
    monkeypatch.setattr(Fit, "tend_gradient", gradient)
    return losses, gradients


@by_name
def test_training_minimises_the_objective(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient of the first two optimiser steps equal those of `make_objective` at t = 0 and 1."""
    vae, y = small_vae(options), rows_for(options)
    weights, vae.initialized = vae.pack_weights(), True  # so that training begins at these
    losses, gradients = record(vae, monkeypatch)
    settings = {"max_epochs": 2, "batch_size": len(y), "accelerator": "cpu", "precision": "64-true", "progress": False}
    vae.fit(y, S=3, seed=5, learning_rate=1e-12, **settings)
    for epoch in range(2):
        batches = Batches(y, len(y), seed=5)
        batches.set_epoch(epoch)
        objective, gradient = vae.make_objective(next(iter(batches)).rows, S=3)
        assert losses[epoch] == pytest.approx(objective(weights, epoch).item(), rel=1e-9)
        torch.testing.assert_close(gradients[epoch], gradient(weights, epoch), rtol=1e-7, atol=1e-9)


def test_scipy_minimises_the_objective() -> None:
    model = LinearGaussian(1, 3, 0.2, N=60)
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=3, latent_dim=1, likelihood={"name": "gaussian", "variance": 0.2})
    objective, gradient = vae.double().make_objective(model.y, S=20)
    start = vae.pack_weights().numpy()
    result = minimize(objective, start, jac=gradient, method="L-BFGS-B", options={"maxiter": 200})
    assert objective(result.x) < objective(start) - 1
    # PPCA at its maximum has at least the likelihood of the weights that made the data; the ELBO reaches it here
    assert -objective(result.x) > model.log_likelihood.mean() - 0.05


def test_scipys_own_differences_agree() -> None:
    vae = small_vae({"name": "gaussian"})
    objective, gradient = vae.make_objective(rows_for({"name": "gaussian"}))
    w = vae.pack_weights().numpy()
    np.testing.assert_allclose(approx_fprime(w, objective, 1e-7), gradient(w), atol=1e-4)


def test_pack_and_unpack_are_inverse() -> None:
    vae = small_vae({"name": "gaussian_per_dimension"})
    w = vae.pack_weights()
    inference, generative = vae.unpack_weights(w)
    assert {name.split(".")[0] for name in inference} == {"inference"}
    assert "generative.likelihood.log_excess" in generative
    for name, value in vae.named_parameters():
        assert torch.equal({**inference, **generative}[name], value)
    with pytest.raises(ValueError, match=r"params must have shape \(\d+,\); got \(3,\)"):
        vae.unpack_weights(torch.zeros(3))


@by_name
def test_terms_are_per_example_and_add_up(options: dict[str, Any]) -> None:
    """The sampled KL equals the closed form within error; 20 rows at 6e-5 each: false-alarm rate 1.2e-3 a likelihood."""
    vae, y = small_vae(options), rows_for(options)
    with torch.no_grad():
        repeats = [vae.terms(y, 50, seed=seed) for seed in range(60)]
        sampled = torch.stack([terms.monte_carlo for terms in repeats])
        exact = repeats[0].closed_form
    assert repeats[0].log_likelihood.shape == repeats[0].log_posterior.shape == repeats[0].log_prior.shape == (20,)
    for n in range(len(y)):
        assert within_error(sampled[:, n], exact[n].item())
    value = ELBO(7, "monte_carlo")(vae, y, generator(0, "x"))
    torch.testing.assert_close(value.elbo, value.reconstruction - value.kl)
    torch.testing.assert_close(value.loss, -value.elbo)


def test_elbo_is_exact_where_q_is_the_posterior() -> None:
    """With one latent dimension the exact posterior is in the family: log w is constant, so one sample gives log p(y)."""
    model = LinearGaussian(1, 4, 0.3, widen=1.0)
    with torch.no_grad():
        value = ELBO(1, "monte_carlo")(model.vae, model.y, generator(3, "x"))
    np.testing.assert_allclose(value.elbo, model.log_likelihood, rtol=1e-10)


def test_elbo_lies_below_log_p_by_the_kl_to_the_posterior() -> None:
    """Widening q by c costs K (c^2 - 1)/2 - K log c nats where the posterior is diagonal (K = 1)."""
    model = LinearGaussian(1, 4, 0.3, widen=1.5)
    gap = (1.5**2 - 1) / 2 - np.log(1.5)
    with torch.no_grad():
        elbos = torch.stack([ELBO(10)(model.vae, model.y, generator(s, "x")).elbo.mean() for s in range(200)])
    assert within_error(elbos, model.log_likelihood.mean() - gap)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ELBO(0), "samples must be at least 1; got 0"),
        (lambda: ELBO(1, "exact"), "kl must be one of monte_carlo, closed_form; got 'exact'"),
        (lambda: BetaELBO(beta=-1.0), "beta must be at least 0; got -1"),
        (lambda: BetaELBO(schedule="cosine"), "schedule must be one of constant, linear, cyclic; got 'cosine'"),
        (lambda: BetaELBO(epochs=0), "epochs must be greater than 0; got 0"),
        (lambda: FreeBits(nats=-0.1), "nats must be at least 0; got -0.1"),
        (lambda: FreeBits(group=0), "group must be at least 1; got 0"),
        (lambda: StickingTheLanding(0), "samples must be at least 1; got 0"),
    ],
)
def test_bad_objectives_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
