"""The lecture's methods, and the files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.anchors import LIKELIHOODS, TOGETHER, LinearGaussian, rows_for, small_vae, within_error
from vae import VAE, Architecture
from vae.errors import ModelFileError
from vae.model.latent_model import Generated
from vae.model.posteriors import DiagonalGaussian

by_name = pytest.mark.parametrize("options", LIKELIHOODS + TOGETHER, ids=lambda o: o["name"])


@by_name
def test_generate_gives_data_means_and_latents(options: dict[str, Any]) -> None:
    vae = small_vae(options)
    generated = vae.generate(50, seed=3, full=True)
    assert isinstance(generated, Generated)
    assert (generated.y.shape, generated.mean.shape, generated.z.shape) == ((50, 4), (50, 4), (50, 2))
    alone = vae.generate(50, seed=3)
    assert isinstance(alone, torch.Tensor)
    assert torch.equal(alone, generated.y)
    assert not torch.equal(alone, torch.as_tensor(vae.generate(50, seed=4)))
    with torch.no_grad():
        torch.testing.assert_close(generated.mean, vae.generative(generated.z).mean)


def test_generated_rows_have_the_models_covariance() -> None:
    """y ~ N(b, W W^T + sigma^2 I): each second moment within error, 9 checks at 6e-5."""
    model = LinearGaussian(2, 3, 0.5)
    y = np.asarray(model.vae.generate(40_000, seed=1)) - model.b
    expected = model.W @ model.W.T + 0.5 * np.eye(3)
    for i in range(3):
        for j in range(3):
            assert within_error(y[:, i] * y[:, j], expected[i, j])


def test_infer_gives_variances_not_standard_deviations() -> None:
    model = LinearGaussian(1, 3, 0.5, widen=1.0)
    means, variances = model.vae.infer(model.y)
    exact = 1 / (1 + (model.W**2).sum() / 0.5)
    np.testing.assert_allclose(variances, exact, rtol=1e-9)
    np.testing.assert_allclose(means[:, 0], exact * (model.y.numpy() - model.b) @ model.W[:, 0] / 0.5, rtol=1e-9)


def test_posterior_standard_deviations_grow_linearly_above_one() -> None:
    """And are exponential, to full relative precision, below; value and slope agree where the two meet."""
    f = torch.tensor([-40.0, -1.0, 0.0, 3.0, 30.0], requires_grad=True)
    stddev = DiagonalGaussian(1)(torch.stack([f, f], dim=-1)).stddev[:, 0]
    torch.testing.assert_close(stddev, torch.tensor([np.exp(-40.0), np.exp(-1.0), 1.0, 4.0, 31.0], dtype=torch.float32))
    (slope,) = torch.autograd.grad(stddev.sum(), f)
    torch.testing.assert_close(slope, torch.tensor([np.exp(-40.0), np.exp(-1.0), 1.0, 1.0, 1.0], dtype=torch.float32))


@pytest.mark.parametrize("estimator", ["prior", "importance"])
def test_log_likelihood_is_per_example(estimator: str) -> None:
    model = LinearGaussian(1, 3, 0.5, N=9)
    found = model.vae.log_likelihood(model.y, 20_000, estimator=estimator)
    assert found.shape == (9,)
    np.testing.assert_allclose(found, model.log_likelihood, atol=0.05)
    with pytest.raises(ValueError, match="estimator must be one of annealed, importance, prior; got 'exact'"):
        model.vae.log_likelihood(model.y, estimator="exact")


def test_initial_weights_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = small_vae({"name": "gaussian"}, seed=4).pack_weights()
    before = torch.random.get_rng_state()
    again = small_vae({"name": "gaussian"}, seed=4).pack_weights()
    assert torch.equal(first, again)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(first, small_vae({"name": "gaussian"}, seed=5).pack_weights())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((3, 5)), r"y must have shape \(N, 4\) with N >= 1; got \(3, 5\)"),
        (np.zeros(4), r"y must have shape \(N, 4\) with N >= 1; got \(4,\)"),
        (np.zeros((0, 4)), r"y must have shape \(N, 4\) with N >= 1; got \(0, 4\)"),
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]]), "finite under the Gaussian likelihood; got nan in row 1, column 1"),
        (np.array([[0, 0, 0, np.inf]]), "y must be finite under the Gaussian likelihood; got inf in row 0, column 3"),
    ],
)
def test_bad_rows_are_refused(y: Any, message: str) -> None:
    vae = small_vae({"name": "gaussian"})
    for method in (vae.infer, vae.log_likelihood, vae.fit, vae.make_objective, vae.terms):
        with pytest.raises(ValueError, match=message):
            method(y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_dim": 0}, "data_dim must be at least 1; got 0"),
        ({"latent_dim": -1}, "latent_dim must be at least 1; got -1"),
        ({"likelihood": "normal"}, "likelihood must be one of bernoulli, beta.*; got 'normal'"),
        ({"generative_architecture": {"hidden": [0]}}, r"hidden.0 must be at least 1; got 0"),
        ({"inference_architecture": {"activation": "sin"}}, "activation must be one of tanh, .*; got 'sin'"),
    ],
)
def test_bad_models_are_refused(change: dict[str, Any], message: str) -> None:
    good = {"generative_architecture": {}, "inference_architecture": {}, "data_dim": 3, "latent_dim": 2}
    with pytest.raises(ValueError, match=message):
        VAE(**{**good, **change})
    with pytest.raises(ValueError, match="N must be at least 1; got 0"):
        VAE(**good).generate(0)


def test_architectures_give_widths_layers_and_activation() -> None:
    vae = VAE(Architecture((5, 6), "relu"), {"hidden": []}, data_dim=3, latent_dim=2)
    assert [tuple(p.shape) for n, p in vae.generative.network.named_parameters() if n.endswith("weight")] == [
        (5, 2),
        (6, 5),
        (3, 6),
    ]
    assert [tuple(p.shape) for p in vae.inference.network.parameters()] == [(4, 3), (4,)]


def test_the_bernoulli_likelihood_is_for_zeros_and_ones() -> None:
    with pytest.raises(ValueError, match=r"y must be 0 or 1 under the Bernoulli likelihood; got 16.0 in row 0, column 2"):
        small_vae({"name": "bernoulli"}).log_likelihood([[0, 1, 16, 0]])


def test_double_precision_survives_its_files(tmp_path: Path) -> None:
    vae, y = small_vae({"name": "gaussian"}), rows_for({"name": "gaussian"})
    vae.save(tmp_path)
    assert torch.equal(VAE.load(tmp_path).log_likelihood(y, 50), vae.log_likelihood(y, 50))


@by_name
def test_save_and_load(options: dict[str, Any], tmp_path: Path) -> None:
    vae, y = small_vae(options).float(), rows_for(options)
    vae.save(tmp_path / "a")
    loaded = VAE.load(tmp_path / "a")
    assert torch.equal(loaded.log_likelihood(y, 50), vae.log_likelihood(y, 50))
    loaded.save(tmp_path / "b")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model.json", "model.safetensors"]
    text = (tmp_path / "a" / "model.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def damage(folder: Path, kind: str) -> None:
    weights, card = folder / "model.safetensors", folder / "model.json"
    tensors = load_file(weights)
    if kind == "missing":
        weights.unlink()
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif kind == "garbage":
        weights.write_bytes(b"not safetensors")
    elif kind == "not json":
        card.write_text("{")
    elif kind == "no key":
        card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "latent_dim"}))
    elif kind == "other format":
        card.write_text(card.read_text().replace("evidence-vae-1", "evidence-vae-9"))
    elif kind == "unknown likelihood":
        card.write_text(card.read_text().replace('"name": "gaussian"', '"name": "normal"'))
    elif kind == "gigantic":
        card.write_text(card.read_text().replace('"data_dim": 4', '"data_dim": 1000000000'))
    elif kind == "other shape":
        card.write_text(card.read_text().replace('"data_dim": 4', '"data_dim": 5'))
    elif kind == "extra tensor":
        save_file({**tensors, "x": torch.zeros(1)}, weights)
    elif kind == "other dtype":
        save_file({name: value.double() for name, value in tensors.items()}, weights)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "model.safetensors is missing; train again"),
        ("truncated", "model.safetensors is damaged or truncated: "),
        ("garbage", "model.safetensors is damaged or truncated: "),
        ("not json", "model.json is damaged or of another format: "),
        ("unknown likelihood", "model.json is damaged or of another format: likelihood must be one of .*; got 'normal'"),
        ("gigantic", r"not of the model in model.json: tensor 'generative.network.2.bias' should be \(1000000000,\)"),
        ("no key", "model.json is damaged or of another format: latent_dim: Field required"),
        ("other format", "model.json is damaged or of another format: format: Input should be 'evidence-vae-1'"),
        (
            "other shape",
            r"not of the model in model.json: tensor 'generative.network.2.bias' should be \(5,\) float32 but is \(4,\)",
        ),
        ("extra tensor", r"tensor 'x' should be absent but is \(1,\) float32"),
        ("other dtype", "should be .* float32 but is .* float64"),
    ],
)
def test_damaged_model_files_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    small_vae({"name": "gaussian"}).float().save(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(ModelFileError, match=message):
        VAE.load(tmp_path)
