"""What is watched while training, against computations by hand; and that a collapse is told, once, and nothing else is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from tests.anchors import LinearGaussian, rows_for, set_affine, small_vae
from tests.test_latents import NORMAL, PAIRS, made
from tests.test_resume import Memory
from vae import VAE
from vae.distributions.flows import Transported
from vae.evidence import latent_usage
from vae.model.usage import ACTIVE
from vae.training.collapse import is_collapsed, usage_lines
from vae.training.diagnosis import PATIENCE, ROWS, usage
from vae.training.rows.batches import Batches
from vae.training.totals import MEASURED, GradientNorms

STILL: dict[str, Any] = {
    "learning_rate": 1e-300, "accelerator": "cpu", "progress": False, "max_epochs": 1, "precision": "64-true"
}  # fmt: skip


def collapsed(K: int = 2) -> VAE:
    """A model whose q(z|y) is N(0.1, 0.8^2) in each dimension, for every row."""
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=4, latent_dim=K, likelihood=NORMAL).double()
    set_affine(vae.inference.network[0], np.zeros((2 * K, 4)), np.repeat([0.1, np.log(0.8)], K))
    return vae


def test_usage_by_hand() -> None:
    """The posterior means of PCA are linear in y, its variances are the same for all rows."""
    model = LinearGaussian(2, 3, 0.5, N=40)
    variance, kl = usage(model.vae, model.y)
    precision = np.eye(2) + model.W.T @ model.W / 0.5
    mean = (model.y.numpy() - model.b) @ model.W @ np.linalg.inv(precision) / 0.5
    s = 1.3**2 * np.diag(np.linalg.inv(precision))
    np.testing.assert_allclose(variance, mean.var(axis=0, ddof=1))
    assert kl is not None
    np.testing.assert_allclose(kl, 0.5 * ((mean**2).mean(axis=0) + s - np.log(s) - 1))


@pytest.mark.parametrize(("prior", "posterior"), PAIRS, ids=lambda name: name)
def test_usage_of_every_combination_is_that_of_the_evaluation(prior: str, posterior: str) -> None:
    """Where means are exact; a flow's are of few draws, good enough to tell dimensions in use from others."""
    vae, y = made(prior, posterior).train(), rows_for(NORMAL, 60)
    (variance, kl), evaluated = usage(vae, y), latent_usage(vae, y)
    assert (kl is None) == (evaluated.kl is None)
    if kl is not None:
        torch.testing.assert_close(kl, evaluated.kl)
    wide = posterior == "flow"
    torch.testing.assert_close(variance, evaluated.mean_variance, rtol=1.0 if wide else 1e-9, atol=1e-12)
    assert torch.equal(variance > ACTIVE, evaluated.mean_variance > ACTIVE)
    assert vae.training


def test_a_flow_that_is_the_same_for_all_rows_is_not_in_use() -> None:
    vae = made(posterior="flow")
    for weights in vae.inference.network.parameters():
        weights.detach().zero_()
    y = rows_for(NORMAL)
    assert isinstance(vae.inference(y), Transported)
    assert usage(vae, y)[0].max() < 1e-20


def test_a_collapsed_model_by_hand() -> None:
    variance, kl = usage(collapsed(), rows_for(NORMAL))
    assert variance.tolist() == [0, 0]
    assert kl is not None
    assert kl.tolist() == pytest.approx([0.5 * (0.01 + 0.64 - 1) - np.log(0.8)] * 2)


def test_rows_of_the_history_are_of_the_first_validation_rows_after_each_epoch() -> None:
    vae, validation = small_vae(NORMAL), rows_for(NORMAL, ROWS + 30, seed=9)
    vae.fit(rows_for(NORMAL), validation=validation, **STILL)
    variance, kl = usage(vae, validation[:ROWS])
    assert kl is not None
    assert vae.history.latents == [{"epoch": 0, **{f"kl_{k + 1}": float(f"{kl[k]:.5g}") for k in range(2)}}]
    assert vae.history.rows[0]["valid_active_units"] == (variance > ACTIVE).sum()
    vae.fit(validation[:7], **STILL)
    assert vae.history.rows[0]["train_active_units"] == (usage(vae, validation[:7])[0] > ACTIVE).sum()


def test_of_probabilities_zeros_and_ones_are_drawn() -> None:
    vae = small_vae({"name": "bernoulli"})
    vae.fit(torch.full((40, 4), 0.5), binarize=True, **STILL)
    assert vae.history.latents[0]["kl_1"] != float(f"{usage(vae, torch.full((40, 4), 0.5))[1][0]:.5g}")  # type: ignore[index]


def test_the_gradient_norm_is_the_mean_over_steps_before_clipping() -> None:
    vae, y = small_vae(NORMAL), rows_for(NORMAL, 50)
    vae.fit(y, **STILL)  # after which it does not begin at the data any more
    norms = []
    for t, batch in enumerate(Batches(y, 16, seed=0)):
        gradient = vae.make_objective(batch.rows)[1]
        norms.append(np.linalg.norm(gradient(vae.pack_weights().numpy(), t)))
    for clip in (None, 1e-3):
        vae.fit(y, batch_size=16, gradient_clip_norm=clip, **STILL)
        assert vae.history.rows[0]["train_gradient_norm"] == pytest.approx(np.mean(norms))
    assert len(norms) == 4


def test_some_steps_are_measured_and_what_is_infinite_is_left_out() -> None:
    for steps in (1, 7, 100, 1000):
        due = [GradientNorms.is_due(step, steps) for step in range(steps)]
        assert due[0]
        assert min(steps, MEASURED) <= sum(due) < 2 * MEASURED
    norms = GradientNorms()
    for values, mean in (([3.0, np.inf, 5.0, np.nan], 4.0), ([2.0], 2.0), ([np.inf], 0.0), ([], 0.0)):
        for value in values:
            norms.note_gradient(torch.tensor(value))
        assert norms.mean() == mean


EPOCHS = PATIENCE + 4


@pytest.mark.parametrize("killed_after", [None, PATIENCE - 3, PATIENCE + 1])
def test_a_collapse_is_told_once(killed_after: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the fit is interrupted before or after it is told."""
    memory = Memory(fails_after=killed_after)
    settings = STILL | {"max_epochs": EPOCHS, "snapshots": memory}
    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            collapsed().fit(rows_for(NORMAL), validation=rows_for(NORMAL), **settings)
        memory.fails_after = None
    vae = collapsed().fit(rows_for(NORMAL), validation=rows_for(NORMAL), **settings)
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        f"hardly a latent dimension has been in use for {PATIENCE} epochs (posterior collapse); try objective beta_elbo"
        in line
    )
    assert [row["valid_active_units"] for row in vae.history.rows] == [0] * EPOCHS


def test_latents_that_are_used_are_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    model = LinearGaussian(2, 3, 0.5, N=40)
    model.vae.fit(model.y, validation=model.y, **(STILL | {"max_epochs": EPOCHS}))
    assert [row["valid_active_units"] for row in model.vae.history.rows] == [2] * EPOCHS
    shown = capsys.readouterr()
    assert shown.err + shown.out == ""


@pytest.mark.parametrize(
    ("active", "latent_dim", "collapse", "said"),
    [
        (0, 1, True, "0 of 1 latent dimensions in use: posterior collapse"),
        (0, 16, True, "posterior collapse"),
        (1, 16, True, "1 of 16 latent dimensions in use: posterior collapse"),
        (1, 2, False, "1 of 2 latent dimensions in use: no error.*latent_dim could be smaller"),
        (11, 16, False, "no error"),
        (16, 16, False, "16 of 16 latent dimensions in use$"),
    ],
)
def test_what_is_said(active: int, latent_dim: int, collapse: bool, said: str) -> None:
    assert is_collapsed(active, latent_dim) == collapse
    text = "\n".join(usage_lines(active, latent_dim))
    assert re.search(said, text)
    assert ("beta_elbo" in text) == collapse
