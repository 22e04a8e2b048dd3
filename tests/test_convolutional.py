"""Convolutional networks: any size, each row for itself, exact gradients, right estimates, and the same after a reload."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from pipeline.base.errors import InputError
from pipeline.stages import evaluate, generate, prepare, train
from pipeline.tables.schema import load_schema
from tests.anchors import within_error
from tests.workspace import write_params
from vae import VAE
from vae.evidence import Annealing, annealed_importance_sampling, importance_sampling, prior_sampling
from vae.options.architecture import Shape

SHAPES: list[Shape] = [(1, 1, 1), (2, 3, 1), (5, 7, 3), (8, 8, 1), (9, 4, 3)]
LAYERS = {"channels": [3, 4], "hidden": [6], "activation": "silu"}


def model(shape: Shape, likelihood: str = "bernoulli", K: int = 2, **options: Any) -> VAE:
    layers = {**LAYERS, **options}
    vae = VAE(layers, layers, data_dim=math.prod(shape), latent_dim=K, likelihood=likelihood, shape=shape, seed=1)
    return vae.double().eval()


def rows(shape: Shape, N: int = 5) -> torch.Tensor:
    return (torch.rand(N, math.prod(shape), generator=torch.Generator().manual_seed(0)) < 0.4).double()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("residual_blocks", [0, 1])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian_heteroscedastic", "zero_inflated_negative_binomial"])
def test_rows_of_any_size_and_leading_dimensions(shape: Shape, residual_blocks: int, likelihood: str) -> None:
    """Each row and latent has its own result, whatever stands beside it."""
    vae, y = model(shape, likelihood, residual_blocks=residual_blocks), rows(shape)
    z = torch.randn(4, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = vae.generative(z).log_prob(y)
        alone = [[vae.generative(z[s, n]).log_prob(y[n]) for n in range(5)] for s in range(4)]
        np.testing.assert_allclose(together, np.array(alone), rtol=1e-9)
        means = torch.stack([vae.inference(row).mean for row in y])
    np.testing.assert_allclose(vae.inference(y).mean.detach(), means, rtol=1e-9)
    assert vae.generative(z).mean.shape == (4, 5, math.prod(shape))


def test_pixels_are_where_they_belong() -> None:
    """A pixel's output depends on the convolutions' neighbourhood: what changes in one corner stays out of the other."""
    shape = (16, 16, 3)
    network = model(shape, channels=[3], hidden=[]).inference.network
    y = torch.zeros(1, *shape, dtype=torch.float64)
    changed = y.clone()
    changed[0, 0, 0, 2] = 1.0  # the blue of the first pixel
    maps = [network.convolutions(x.permute(0, 3, 1, 2)) for x in (y, changed)]
    difference = (maps[1] - maps[0]).abs().sum(dim=1)[0]
    assert difference[0, 0] > 0
    assert difference.count_nonzero() == 1
    decoder = model(shape, channels=[3], hidden=[]).generative.network
    before = decoder.input(torch.zeros(1, 2, dtype=torch.float64)).detach().reshape(1, 3, 8, 8)
    after = before.clone()
    after[0, :, 7, 7] += 5.0
    decoder.input = torch.nn.Flatten()
    images = [decoder(maps.reshape(1, -1)).detach().reshape(*shape) for maps in (before, after)]
    changed_pixels = (images[1] - images[0]).abs().sum(dim=-1) > 0
    assert changed_pixels[13:, 13:].all()
    assert not changed_pixels[:13, :].any()


@pytest.mark.parametrize("residual_blocks", [0, 1])
def test_gradient_equals_differences(residual_blocks: int) -> None:
    vae = model((3, 4, 1), residual_blocks=residual_blocks, channels=[2], hidden=[3])
    objective, gradient = vae.make_objective(rows((3, 4, 1)), S=2)
    w = vae.pack_weights().numpy()
    expected = approx_fprime(w, objective, 1e-6)
    assert np.linalg.norm(gradient(w) - expected) / np.linalg.norm(expected) < 1e-5


def test_probabilities_of_all_images_add_up_to_one() -> None:
    """Sum over all 2^6 images of the unbiased estimates. False-alarm rate 6e-5 an estimator."""
    vae = model((2, 3, 1))
    y = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
    annealed = partial(annealed_importance_sampling, annealing=Annealing(5, 2, step_sizes=(0.5,)))
    for estimate in (importance_sampling, prior_sampling, annealed):
        totals = [estimate(vae, y, 10, seed=seed).log_likelihood.exp().sum().item() for seed in range(30)]
        assert np.allclose(totals, 1, atol=1e-9) or within_error(np.array(totals), 1.0)


def test_training_improves_and_the_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    shape = (6, 6, 1)
    angle = torch.rand(300, 1, generator=torch.Generator().manual_seed(0)) * 5
    at = torch.arange(36).remainder(6) - angle
    y = (at.abs() < 1).float()
    vae = VAE(LAYERS, LAYERS, data_dim=36, latent_dim=2, likelihood="bernoulli", shape=shape)
    settings = {"max_epochs": 30, "learning_rate": 1e-2, "accelerator": "cpu", "progress": False}
    vae.fit(y, validation=y, **settings)
    elbo = [row["valid_elbo"] for row in vae.history.rows]
    assert max(elbo) > elbo[0] + 3
    again = VAE(LAYERS, LAYERS, data_dim=36, latent_dim=2, likelihood="bernoulli", shape=shape).fit(
        y, validation=y, **settings
    )
    assert torch.equal(vae.pack_weights(), again.pack_weights())
    vae.save(tmp_path)
    loaded = VAE.load(tmp_path)
    assert torch.equal(loaded.pack_weights(), vae.pack_weights())
    assert loaded.card == vae.card
    assert torch.equal(loaded.inference(y).mean, vae.inference(y).mean)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": None}, r"shape \(height, width, channels\) must have 6 numbers; got None"),
        ({"shape": (2, 2, 1)}, r"must have 6 numbers; got \(2, 2, 1\)"),
        (
            {"likelihood": {"name": "mixed", "columns": [{"name": "bernoulli"}] * 6}},
            "channels need all columns to have the same",
        ),
    ],
)
def test_other_data_than_images_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"data_dim": 6, "latent_dim": 2, "likelihood": "bernoulli", "shape": (2, 3, 1), **changes}
    with pytest.raises(ValueError, match=message):
        VAE(LAYERS, LAYERS, **arguments)
    with pytest.raises(ValueError, match="residual_blocks follow convolutions: set channels, or residual_blocks to 0"):
        VAE({"residual_blocks": 1}, {}, data_dim=6, latent_dim=2)


def run(*stages: ModuleType) -> None:
    for stage in stages:
        stage.main()


CONVOLUTIONAL = {f"model.{name}": LAYERS for name in ("generative", "inference")}


@pytest.mark.pictures
def test_coloured_images_go_through_all_stages(workspace: Path) -> None:
    path = Path("data/raw/images.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3), dtype=np.uint8))
    write_params(workspace, **{"data.path": str(path), "data.shape": [5, 4, 3], "data.dequantize": 1, **CONVOLUTIONAL})
    run(prepare, train, evaluate, generate)
    assert load_schema().shape == (5, 4, 3)
    assert np.load("results/generate/samples.npy").shape == (20, 60)
    assert VAE.load("models").card.shape == (5, 4, 3)
    for name in ("samples", "reconstructions", "latent"):
        assert Path(f"results/generate/{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.shape": None}, "model.generative.channels: convolutions are for images; set data.shape, or channels to"),
        ({"train.hide": 0.5}, "model.generative.channels: convolutions are for complete images of one likelihood"),
        ({"data.shape": [5, 6, 2]}, r"data.shape: must be .* with 1 or 3 channels; got \[5, 6, 2\]"),
        ({"data.shape": [5, 5, 3]}, r"data.shape: \[5, 5, 3\] needs 75 columns, but .* has 60"),
        ({"model.generative": {"hidden": [4], "residual_blocks": 1}}, "residual_blocks follow convolutions: set channels"),
    ],
)
def test_params_that_do_not_go_with_images_are_named(changes: dict[str, Any], message: str, workspace: Path) -> None:
    path = Path("data/raw/images.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8))
    write_params(
        workspace, **{"data.path": str(path), "data.shape": [5, 4, 3], "data.dequantize": 1, **CONVOLUTIONAL, **changes}
    )
    with pytest.raises(InputError, match=message):
        run(prepare, train)
