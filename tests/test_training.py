"""Fitting with Lightning: order, averages, the epoch that is kept, early stopping, divergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from tests.anchors import LinearGaussian, rows_for, small_vae
from vae import ELBO, VAE
from vae.distributions.noise import draws, of_step, per_example
from vae.errors import AcceleratorError, DivergenceError
from vae.objectives import Objective, Terms, Values
from vae.training.fast.fused_terms import terms_of_steps
from vae.training.rows.batches import Batches
from vae.training.threads import paying_threads
from vae.training.totals import TOGETHER, Totals

QUICK: dict[str, Any] = {"accelerator": "cpu", "progress": False, "max_epochs": 3, "precision": "64-true"}
GAUSSIAN = {"name": "gaussian"}


def fitted(seed: int = 0, **settings: Any) -> VAE:
    vae = small_vae(GAUSSIAN)
    return vae.fit(rows_for(GAUSSIAN, 50), validation=rows_for(GAUSSIAN, 20, seed=9), seed=seed, **{**QUICK, **settings})


def test_same_seed_same_weights() -> None:
    assert torch.equal(fitted().pack_weights(), fitted().pack_weights())
    assert not torch.equal(fitted().pack_weights(), fitted(seed=1).pack_weights())


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    first, before = fitted().pack_weights(), torch.random.get_rng_state()
    assert torch.equal(fitted().pack_weights(), first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_history_has_a_finite_row_per_epoch() -> None:
    rows = fitted().history.rows
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    splits = {f"{split}_{name}" for split in ("train", "valid") for name in ("bound", "elbo", "reconstruction", "kl", "loss")}
    watched = {"train_gradient_norm", "valid_active_units"}
    assert all(set(row) == splits | watched | {"epoch", "learning_rate"} for row in rows)
    for row in rows:
        assert row["train_elbo"] == pytest.approx(row["train_reconstruction"] - row["train_kl"])


def test_averages_count_rows_not_batches() -> None:
    """A ragged last batch: the epoch's mean equals the mean over all rows."""
    vae, y = small_vae(GAUSSIAN), rows_for(GAUSSIAN, 50)
    vae.fit(y, validation=y, learning_rate=1e-300, batch_size=16, **{**QUICK, "max_epochs": 1})
    batches = Batches(y, 1024)
    with torch.no_grad():
        expected = vae.objective(vae, next(iter(batches)).rows, of_step(0, "valid", 0, 0)).elbo.mean().item()
        parts = [
            vae.objective(vae, batch.rows, of_step(0, "train", t, 0)).elbo for t, batch in enumerate(Batches(y, 16, seed=0))
        ]
    assert vae.history.rows[0]["valid_elbo"] == pytest.approx(expected)
    assert vae.history.rows[0]["train_elbo"] == pytest.approx(torch.cat(parts).mean().item())


def test_log_jacobian_shifts_what_is_logged_and_nothing_else() -> None:
    plain, shifted = fitted(), fitted(log_jacobian=(10.0, 20.0))
    assert torch.equal(plain.pack_weights(), shifted.pack_weights())
    for before, after in zip(plain.history.rows, shifted.history.rows, strict=True):
        assert after["train_elbo"] == pytest.approx(before["train_elbo"] + 10)
        assert after["valid_reconstruction"] == pytest.approx(before["valid_reconstruction"] + 20)
        assert after["valid_kl"] == before["valid_kl"]


class Weights(pl.Callback):
    def __init__(self) -> None:
        self.after: list[torch.Tensor] = []

    def on_validation_epoch_start(self, trainer: Any, pl_module: VAE) -> None:
        self.after.append(pl_module.pack_weights())


def test_the_best_epoch_is_kept() -> None:
    """A learning rate so large that later epochs are worse."""
    weights = Weights()
    vae = fitted(learning_rate=0.3, max_epochs=12, batch_size=10, callbacks=[weights])
    elbos = [row["valid_elbo"] for row in vae.history.rows]
    best = int(np.argmax(elbos))
    assert best < len(elbos) - 1
    assert torch.equal(vae.pack_weights(), weights.after[best])


def test_without_validation_the_last_epoch_is_kept() -> None:
    vae = small_vae(GAUSSIAN).fit(rows_for(GAUSSIAN), **QUICK)
    assert set(vae.history.rows[0]) == {
        "epoch",
        "train_bound",
        "train_elbo",
        "train_reconstruction",
        "train_kl",
        "train_loss",
        "train_gradient_norm",
        "train_active_units",
        "learning_rate",
    }


def test_early_stopping_waits_for_its_patience() -> None:
    rows = fitted(learning_rate=0.3, max_epochs=60, batch_size=10, patience=4).history.rows
    best = int(np.argmax([row["valid_elbo"] for row in rows]))
    assert len(rows) == best + 1 + 4


def test_s_sets_the_samples_of_the_objective() -> None:
    vae = small_vae(GAUSSIAN)
    vae.objective = ELBO(2, "closed_form")
    vae.fit(rows_for(GAUSSIAN), **QUICK)
    assert vae.objective.samples == 2
    vae.fit(rows_for(GAUSSIAN), S=5, **QUICK)
    assert (vae.objective.samples, vae.objective.kl) == (5, "closed_form")


def test_gradient_clipping_changes_training() -> None:
    assert not torch.equal(fitted(gradient_clip_norm=1e-3).pack_weights(), fitted().pack_weights())


def test_training_reaches_the_maximum_of_a_linear_gaussian_model() -> None:
    """A linear VAE trained by `fit` comes within 0.1 nats of the exact maximum of PPCA (Tipping and Bishop 1999)."""
    model = LinearGaussian(1, 3, 0.2, N=400)
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=3, latent_dim=1, likelihood="gaussian_learned").double()
    vae.fit(
        model.y, S=4, max_epochs=150, batch_size=50, learning_rate=0.02, accelerator="cpu", precision="64-true", progress=False
    )
    centred = model.y.numpy() - model.y.numpy().mean(axis=0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred / len(centred))[::-1]
    noise = eigenvalues[1:].mean()
    maximum = -0.5 * (3 * np.log(2 * np.pi) + np.log(eigenvalues[0]) + 2 * np.log(noise) + 3)
    assert maximum - 0.1 < vae.log_likelihood(model.y, 2000, estimator="importance").mean().item() <= maximum + 0.02


def test_divergence_stops_and_names_the_epoch() -> None:
    with pytest.raises(DivergenceError, match=r"training diverged in epoch \d+: .*_elbo is (nan|-inf)"):
        fitted(learning_rate=1e6, max_epochs=50)


class Interrupt(pl.Callback):
    """Ctrl-C after the first stretch of batches."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_fit_leaves_nothing_behind() -> None:
    vae = small_vae(GAUSSIAN)
    vae.output_bias = "random"  # the first fit's is of other rows
    with pytest.raises(KeyboardInterrupt):
        vae.fit(100 * rows_for(GAUSSIAN, 50), batch_size=10, callbacks=[Interrupt()], **QUICK)
    assert not vae.training
    assert not torch.are_deterministic_algorithms_enabled()
    vae.fit(rows_for(GAUSSIAN, 50), batch_size=10, **QUICK)
    assert vae.history.rows[0]["train_elbo"] > -100


def test_epochs_are_shown_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(progress=True)
    assert "Epoch 2/2" in capsys.readouterr().out
    fitted()
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_missing_accelerators_are_named() -> None:
    with pytest.raises(
        AcceleratorError, match=r"accelerator='gpu', devices=1.* cannot be had on this machine.*'auto' or 'cpu'"
    ):
        fitted(accelerator="gpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be at least 1; got 0"),
        ({"batch_size": -3}, "batch_size must be at least 1; got -3"),
        ({"learning_rate": 0}, "learning_rate must be greater than 0; got 0"),
        ({"gradient_clip_norm": -1}, "gradient_clip_norm must be greater than 0; got -1"),
        ({"weight_decay": -1}, "weight_decay must be at least 0; got -1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(**settings)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="max_epoch"):
        fitted(max_epoch=3)


@pytest.mark.parametrize("N", [1, 10, 23])
@pytest.mark.parametrize("processes", [1, 3])
def test_every_row_is_seen_once(N: int, processes: int) -> None:
    y = torch.arange(N)[:, None]
    shares = [Batches(y, 10, seed=1, rank=rank, processes=processes) for rank in range(processes)]
    assert all(len(share) == math.ceil(N / 10) == len(list(share)) for share in shares)
    seen = sorted(int(row) for share in shares for batch in share for row in batch.rows)
    assert seen == list(range(N))
    assert all(sum(batch.size for batch in share) == N for share in shares)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    y = torch.arange(30)

    def order(seed: int, epoch: int) -> list[int]:
        batches = Batches(y, 7, seed)
        batches.set_epoch(epoch)
        return torch.cat([batch.rows for batch in batches]).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


class OneProcess:
    root_device = torch.device("cpu")

    def reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        return tensor


@pytest.mark.parametrize("batches", [2, TOGETHER, 2 * TOGETHER + 1])
def test_totals_count_rows_and_start_anew(batches: int) -> None:
    totals = Totals()
    for _ in range(2):
        expected = []
        for number in range(batches):
            loss = torch.arange(3.0)[: 1 + number % 3] + number
            totals.add(Values(loss, 2 * loss, loss), torch.tensor([True, False, True])[: len(loss)])
            expected += loss[::2].tolist()
        mean = np.mean(expected)
        np.testing.assert_allclose(totals.means(OneProcess()), [mean, mean, 2 * mean, mean, mean], rtol=1e-12)


def test_noise_is_a_function_of_its_address() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    both = per_example(0, "a", torch.tensor([5, 2]), 1, (4, 3), like)
    assert torch.equal(both[:, 1:], per_example(0, "a", torch.tensor([2]), 1, (4, 3), like))
    others = [(0, "a", 2, 0), (1, "a", 2, 1), (0, "b", 2, 1), (0, "a", 3, 1)]
    for seed, stream, example, block in others:
        assert not torch.equal(both[:, 1:], per_example(seed, stream, torch.tensor([example]), block, (4, 3), like))


def test_the_first_draws_are_the_same_for_any_number_of_them() -> None:
    like, ids = torch.zeros(1, dtype=torch.float64), torch.tensor([5, 2])
    many = torch.cat(list(draws(0, "a", ids, 700, 3, like)))
    assert many.shape == (700, 2, 3)
    for S in (1, 128, 300):
        assert torch.equal(torch.cat(list(draws(0, "a", ids, S, 3, like))), many[:S])
    assert len(many.flatten().unique()) == many.numel()


def test_binary_values_are_drawn_anew_in_every_step_with_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 counts of 500 x 40 draws the largest deviation is beyond 5 standard deviations once in 290,000 times."""
    p = torch.rand(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p[:, 0], p[:, 1] = 0, 1
    seen: list[torch.Tensor] = []

    def watched(objective: Objective, fused: Any) -> Any:
        terms = terms_of_steps(objective, fused)

        def recorded(vae: VAE, y: torch.Tensor, *others: Any) -> Terms:
            seen.append(y.clone())
            return terms(vae, y, *others)

        return recorded

    monkeypatch.setattr("vae.training.fit.terms_of_steps", watched)
    settings = {**QUICK, "binarize": True, "batch_size": 40, "max_epochs": 500}
    vae = small_vae({"name": "bernoulli"}, D=6).fit(p, **settings)
    drawn = torch.stack(seen)
    assert drawn.shape == (500, 40, 6)
    assert ((drawn == 0) | (drawn == 1)).all()
    assert len({tuple(step.flatten().tolist()) for step in drawn}) == 500
    total, expected = drawn.sum(dim=(0, 1)), 500 * p.sum(dim=0)
    assert ((total - expected).abs() <= 5 * (500 * (p * (1 - p)).sum(dim=0)).sqrt()).all()
    assert torch.equal(vae.pack_weights(), small_vae({"name": "bernoulli"}, D=6).fit(p, **settings).pack_weights())


@pytest.mark.parametrize("value", [1.5, -0.1, torch.nan])
def test_what_is_drawn_must_be_probabilities(value: float) -> None:
    with pytest.raises(ValueError, match=r"y must be probabilities, from 0 to 1, with binarize=True"):
        small_vae({"name": "bernoulli"}).fit(torch.full((3, 4), value), binarize=True, **QUICK)


@pytest.mark.parametrize(("data_dim", "hidden", "batch_size", "expected"), [(64, 96, 100, 1), (784, 512, 128, 2)])
def test_threads_are_chosen_by_the_size_of_a_step_and_left_as_they_were(
    data_dim: int, hidden: int, batch_size: int, expected: int
) -> None:
    vae = VAE({"hidden": [hidden]}, {"hidden": [hidden]}, data_dim=data_dim, latent_dim=16)
    assert paying_threads(vae, batch_size, 1) == expected
    used = set[int]()

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            used.add(torch.get_num_threads())

    torch.set_num_threads(3)
    try:
        for asked in (None, 4):
            vae.fit(
                torch.zeros(batch_size, data_dim), callbacks=[Watch()], **QUICK | {"batch_size": batch_size, "threads": asked}
            )
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert used == {expected, 4}


def test_a_second_thread_pays_for_many_draws_and_for_convolutions() -> None:
    vae = VAE({"hidden": [96]}, {"hidden": [96]}, data_dim=64, latent_dim=16)
    assert paying_threads(vae, 100, 50) == 2
    shape: Any = {"channels": [32, 64], "hidden": [8]}
    convolutional = VAE(shape, shape, data_dim=784, latent_dim=4, shape=(28, 28, 1), likelihood={"name": "bernoulli"})
    assert paying_threads(convolutional, 100, 1) == 2
