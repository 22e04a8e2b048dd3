"""Steps in stretches: the same as step by step by hand, with learning rates, averages and half precision."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from tests.anchors import rows_for, small_vae
from tests.test_resume import Memory
from tests.workspace import ROOT
from vae import VAE
from vae.distributions.noise import of_step
from vae.settings import SCHEDULES, burda
from vae.training.rows import data
from vae.training.rows.batches import Batches, Stretches

GAUSSIAN = {"name": "gaussian"}
QUICK: dict[str, Any] = {
    "accelerator": "cpu",
    "progress": False,
    "precision": "64-true",
    "batch_size": 8,
    "learning_rate": 0.02,
}
MOST_FRAMES = 8  # of our own, from a public call to its arithmetic
Y, VALID = rows_for(GAUSSIAN, 50), rows_for(GAUSSIAN, 20, seed=9)


def fitted(**settings: Any) -> VAE:
    return small_vae(GAUSSIAN).fit(Y, **{**QUICK, "max_epochs": 3, **settings})


def by_hand(
    epochs: int = 3, clip: float = math.inf, schedule: str = "constant", decay: float = 0.0, **adam: Any
) -> torch.Tensor:
    """The weights, or their average, after a loop that takes one step after the other."""
    vae = small_vae(GAUSSIAN).train()
    vae.generative.initialize(Y)
    optimizer = torch.optim.Adam(vae.parameters(), **adam)
    batches, average = Batches(Y, 8, seed=0), vae.pack_weights()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * SCHEDULES[schedule](epoch / epochs)
        for step, batch in enumerate(batches, epoch * len(batches)):
            optimizer.zero_grad()
            vae.objective(vae, batch.rows, of_step(0, "train", step, 0)).loss.mean().backward()
            clip_grad_norm_(vae.parameters(), clip)
            optimizer.step()
            average = decay * average + (1 - decay) * vae.pack_weights()
    return average


@pytest.mark.parametrize(
    ("settings", "hand"),
    [
        ({}, {}),
        ({"gradient_clip_norm": 0.5}, {"clip": 0.5}),
        ({"schedule": "cosine"}, {"schedule": "cosine"}),
        ({"schedule": "burda"}, {"schedule": "burda"}),
        ({"adam_epsilon": 0.1}, {"eps": 0.1}),
        ({"weight_decay": 0.3}, {"weight_decay": 0.3}),
        ({"ema_decay": 0.9}, {"decay": 0.9}),
    ],
    ids=str,
)
def test_a_fit_takes_the_steps_of_a_loop_by_hand(settings: dict[str, Any], hand: dict[str, Any]) -> None:
    found = fitted(**settings).pack_weights()
    torch.testing.assert_close(found, by_hand(**hand), rtol=1e-9, atol=1e-11)
    assert not settings or not torch.allclose(found, by_hand())


@pytest.mark.parametrize("length", [1, 3])
def test_how_long_stretches_are_changes_nothing(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fitted(validation=VALID)
    monkeypatch.setattr(data, "STRETCH", length)
    found = fitted(validation=VALID)
    assert torch.equal(found.pack_weights(), expected.pack_weights())
    assert found.history.rows == expected.history.rows


def test_stretches_are_the_batches() -> None:
    batches = Batches(torch.arange(50)[:, None], 8, seed=1)
    stretches = Stretches(batches, 3)
    whole = [batch.rows for stretch in stretches for batch in stretch]
    assert len(stretches) == 3 == len(list(stretches))
    assert [stretch.first for stretch in stretches] == [0, 3, 6]
    assert all(torch.equal(rows, batch.rows) for rows, batch in zip(whole, batches, strict=True))


def test_steps_are_counted() -> None:
    vae = fitted()
    assert vae.trainer.global_step == 3 * math.ceil(50 / 8)


def test_half_precision_uses_the_weights_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """autocast keeps half-precision copies of weights; stretches of one step, in contexts of their own, have no old ones."""
    settings = {"precision": "bf16-mixed", "max_epochs": 2}

    def weights() -> torch.Tensor:
        return small_vae(GAUSSIAN).float().fit(Y.float(), **{**QUICK, **settings}).pack_weights()

    together = weights()
    monkeypatch.setattr(data, "STRETCH", 1)
    assert torch.equal(weights(), together)


def test_the_average_is_validated_kept_and_resumed() -> None:
    whole = fitted(ema_decay=0.8, validation=VALID, max_epochs=4)
    memory = Memory(fails_after=2)
    with pytest.raises(KeyboardInterrupt):
        fitted(ema_decay=0.8, validation=VALID, max_epochs=4, snapshots=memory)
    memory.fails_after = None
    resumed = fitted(ema_decay=0.8, validation=VALID, max_epochs=4, snapshots=memory)
    assert resumed.history.rows == whole.history.rows
    assert torch.equal(resumed.pack_weights(), whole.pack_weights())
    noise = of_step(0, "valid", 0, 0)
    expected = whole.objective(whole, VALID, noise).bound.mean().item()
    assert max(row["valid_bound"] for row in whole.history.rows) == pytest.approx(expected)


def test_the_average_of_a_fit_that_had_finished_is_restored() -> None:
    """Without validation too, where it takes the weights' place in the last epoch only."""
    memory = Memory()
    whole, restored = (fitted(ema_decay=0.8, snapshots=memory).pack_weights() for _ in range(2))
    assert torch.equal(restored, whole)
    assert torch.equal(restored, fitted(ema_decay=0.8).pack_weights())
    assert len(memory.states) == 3


@pytest.mark.parametrize("options", [{}, {"norm": "layer"}], ids=["fused", "by autograd"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_few_calls_lead_from_fit_to_the_decoders_arithmetic(
    likelihood: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Bernoulli data log p(y|z) is one operation with the network; else the network alone is, or it is autograd's."""
    vae = VAE({"hidden": (5,), **options}, {"hidden": (5,), **options}, data_dim=7, latent_dim=2, likelihood=likelihood)

    def stopping(linear: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def stopped(*tensors: torch.Tensor) -> torch.Tensor:
            if any(tensor.shape == vae.generative.network.last.bias.shape for tensor in tensors):
                raise ArithmeticError("here")
            return linear(*tensors)

        return stopped

    for module, name in ((torch, "addmm"), (torch.nn.functional, "linear")):
        monkeypatch.setattr(module, name, stopping(getattr(module, name)))
    with pytest.raises(ArithmeticError, match="here") as stop:
        vae.fit((Y[:, :1] > 0).float().expand(-1, 7), accelerator="cpu", progress=False)
    called = [
        frame for frame in traceback.extract_tb(stop.value.__traceback__) if Path(frame.filename).is_relative_to(ROOT / "vae")
    ]
    assert called[0].name == "fit"
    assert len(called) <= MOST_FRAMES, [f"{Path(frame.filename).name}: {frame.name}" for frame in called]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_begin_at_one_and_do_not_rise(name: str) -> None:
    factors = [SCHEDULES[name](step / 1000) for step in range(1001)]
    assert factors[0] == 1
    assert all(later <= earlier for earlier, later in pairwise(factors))


def test_burda_has_the_papers_stages() -> None:
    """3^i epochs at 1e-4 * round(10^(1 - i / 7), 1), for i from 0 to 7."""
    rates = [1e-3 * burda(epoch / 3280) for epoch in range(3280)]
    expected = [1e-4 * round(10 ** (1 - i / 7), 1) for i in range(8) for _ in range(3**i)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, burda; got 'linear'"),
        ({"adam_epsilon": 0}, "adam_epsilon must be greater than 0; got 0"),
        ({"ema_decay": 1.0}, "ema_decay must be less than 1; got 1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(**settings)
