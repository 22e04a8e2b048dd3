"""Options of the networks: skip connections, norms and dropout, by hand, in training, at rest, after a resume and a reload."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.params.whole import check_params
from tests.anchors import SIGMAS, central_differences, rows_for
from tests.test_objectives import record
from tests.test_resume import Memory
from tests.workspace import params_with
from vae import VAE
from vae.distributions.noise import generator
from vae.evidence import importance_sampling
from vae.evidence.density import paired
from vae.model.layers import Active, BatchNorm, Dropout, MapBatchNorm, MapDropout, Step, active_layers, during
from vae.model.networks import Feedforward
from vae.model.storage import Card
from vae.options.architecture import Architecture
from vae.training.rows.batches import Batches

QUICK: dict[str, Any] = {"accelerator": "cpu", "progress": False, "precision": "64-true", "learning_rate": 0.01}
EVERYTHING = {"dropout": 0.3, "norm": "batch", "residual": True}
OPTIONS: list[dict[str, Any]] = [{"dropout": 0.3}, {"norm": "batch"}, {"norm": "layer"}, {"residual": True}, EVERYTHING]
by_options = pytest.mark.parametrize("options", OPTIONS, ids=lambda of: "-".join(map(str, of.values())))
by_kind = pytest.mark.parametrize("convolutional", [False, True], ids=["vectors", "images"])


def made(options: dict[str, Any], *, convolutional: bool = False, **settings: Any) -> VAE:
    """A small model of eight columns, which are an image where it is convolutional."""
    layers = {"hidden": [5, 5], "activation": "silu", **({"channels": [3, 2], "residual_blocks": 1} if convolutional else {})}
    chosen = {"likelihood": "bernoulli", "shape": (8, 1, 1) if convolutional else None, "seed": 2} | settings
    return VAE({**layers, **options}, {**layers, **options}, data_dim=8, latent_dim=2, **chosen).double()


def rows_of(N: int = 20, seed: int = 1) -> Tensor:
    return rows_for({"name": "bernoulli"}, N, 8, seed)


def fitted(vae: VAE, N: int = 41, **settings: Any) -> VAE:
    """For a few epochs, whose last batch is one row."""
    held_out = rows_of(20, seed=9)
    return vae.fit(rows_of(N), validation=held_out, **{**QUICK, "batch_size": 10, "max_epochs": 3, **settings})


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- layers


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_a_network_by_hand(norm: str) -> None:
    """x -> a (3 wide) -> b (2) -> b + c (2) -> out: nothing but b skips a layer, and each norm is before its tanh."""
    network = Feedforward(Architecture((3, 2, 2), norm=norm, residual=True), 3, 4).double()
    noise = generator(0, "weights")
    with torch.no_grad():
        for values in [*network.parameters(), *network.buffers()]:
            values.copy_(torch.rand(values.shape, generator=noise, dtype=torch.float64) + 0.1)
    x = torch.randn(6, 3, generator=noise, dtype=torch.float64)
    weights = {name: values.numpy() for name, values in network.state_dict().items()}

    def layer(at: str, h: np.ndarray, linear: int) -> np.ndarray:
        f = h @ weights[f"{at}{linear}.weight"].T + weights.get(f"{at}{linear}.bias", 0)
        own = f"{at}{linear + 1}"
        if norm == "batch":
            f = (f - weights[f"{own}.running_mean"]) / np.sqrt(weights[f"{own}.running_var"] + 1e-5)
        if norm == "layer":
            f = (f - f.mean(axis=-1, keepdims=True)) / np.sqrt(f.var(axis=-1, keepdims=True) + 1e-5)
        return np.tanh(f if norm == "none" else f * weights[f"{own}.weight"] + weights[f"{own}.bias"])

    step = 2 if norm == "none" else 3
    b = layer("", layer("", x.numpy(), 0), step)
    c = b + layer(f"{2 * step}.", b, 0)
    last = 2 * step + 1
    expected = c @ weights[f"{last}.weight"].T + weights[f"{last}.bias"]
    np.testing.assert_allclose(network(x).detach(), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(7, 3), (4, 5, 3), (6, 3, 2, 2)])
def test_batch_norm_is_torchs(shape: tuple[int, ...]) -> None:
    """In two steps and at rest, with leading dimensions as one batch, and over maps."""
    ours, oracle = (MapBatchNorm(3), nn.BatchNorm2d(3)) if len(shape) == 4 else (BatchNorm(3), nn.BatchNorm1d(3))
    ours, oracle = ours.double(), oracle.double()
    for t in range(2):
        x = 3 + 2 * torch.randn(shape, generator=generator(0, "x", t), dtype=torch.float64)
        flat = x if len(shape) == 4 else x.reshape(-1, 3)
        with during(Step(), [ours]):
            torch.testing.assert_close(ours(x), oracle(flat).reshape(shape))
        torch.testing.assert_close(ours.running_mean, oracle.running_mean)
        torch.testing.assert_close(ours.running_var, oracle.running_var)
    oracle.eval()
    torch.testing.assert_close(ours(x), oracle(flat).reshape(shape))


def test_a_batch_of_one_row_is_normalised_by_the_running_statistics() -> None:
    """It has no variance; as draws of one row it has."""
    norm, x = BatchNorm(3).double(), torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    with during(Step(), [norm]):
        torch.testing.assert_close(norm(x), x / math.sqrt(1 + 1e-5))
        assert norm.running_mean.tolist() == [0, 0, 0]
        draws = torch.stack([x, x + 2])
        torch.testing.assert_close(
            norm(draws), torch.tensor([-1.0, 1.0]).double()[:, None, None].expand(2, 1, 3) / math.sqrt(1 + 1e-5)
        )
        assert norm.running_mean.tolist() == pytest.approx([0.2, 0.3, 0.4])


def test_dropout_keeps_the_expectation() -> None:
    """Of 10^5 numbers, each 0 with probability p, else x / (1 - p): mean and share of zeros, 4 checks at 6e-5 each."""
    x = torch.full((100_000,), 2.0, dtype=torch.float64)
    for p in (0.1, 0.7):
        layer = Dropout(p)
        with during(Step(generator(0, "dropout")), [layer]):
            y = layer(x)
        assert y.unique().tolist() == pytest.approx([0, 2 / (1 - p)])
        error = math.sqrt(p * (1 - p) / len(x))
        assert abs((y == 0).double().mean() - p) < SIGMAS * error
        assert abs(y.mean() - 2) < SIGMAS * 2 / (1 - p) * error


def test_dropout_is_a_function_of_its_generator_and_nothing_at_rest() -> None:
    layer, x = Dropout(0.5), torch.ones(50)
    before = torch.random.get_rng_state()

    def drawn(seed: int) -> Tensor:
        with during(Step(generator(seed, "dropout")), [layer]):
            return layer(x)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    assert layer(x) is x
    layer.eval()
    assert drawn(0) is x
    assert torch.equal(before, torch.random.get_rng_state())


def test_whole_channels_of_maps_are_dropped() -> None:
    layer = MapDropout(0.5)
    with during(Step(generator(0, "dropout")), [layer]):
        y = layer(torch.ones(20, 8, 3, 2))
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    assert {0.0, 2.0} == set(y.unique().tolist())
    assert len(y[:, :, 0, 0].unique(dim=0)) == 20


def test_norms_stand_before_activations_and_dropout_behind_them() -> None:
    vae = made(EVERYTHING, convolutional=True)
    encoder, decoder = vae.inference.network, vae.generative.network
    step = ["MapBatchNorm", "SiLU", "MapDropout"]
    for layers, names in (
        (encoder.convolutions, 2 * ["Conv2d", *step, "Residual"]),
        (encoder.convolutions[4].layers, 2 * [*step, "Conv2d"]),
        (decoder.before[1], [*step, "Residual"]),
        (encoder.output, ["Linear", "BatchNorm", "SiLU", "Dropout", "Skip", "Linear"]),
        (encoder.output[4], ["Linear", "BatchNorm", "SiLU", "Dropout"]),
    ):
        assert [type(layer).__name__ for layer in layers] == names


# ---- models


def test_defaults_have_the_names_of_before() -> None:
    names = list(made({}).generative.network.state_dict())
    assert names == [f"{i}.{of}" for i in (0, 2, 4) for of in ("weight", "bias")]
    assert made({})._active == ()


@by_kind
@by_options
def test_gradients_reach_every_parameter(options: dict[str, Any], convolutional: bool) -> None:
    vae = made(options, convolutional=convolutional)
    vae(rows_of(), noise=generator(0, "noise")).loss.mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-9, name


@by_kind
@by_options
def test_the_objective_and_its_gradient(options: dict[str, Any], convolutional: bool) -> None:
    """In both modes: a function of t, by differences in 3 directions, which leaves running statistics and global noise."""
    vae = made(options, convolutional=convolutional)
    objective, gradient = vae.make_objective(rows_of(7), S=2)
    w, before, noise = vae.pack_weights().numpy(), copy.deepcopy(vae.state_dict()), torch.random.get_rng_state()
    directions, values = np.random.default_rng(0).normal(size=(3, len(w))), []
    for training in (True, False):
        vae.train(training)
        expected = central_differences(lambda of: objective(w + of @ directions), np.zeros(3), 1e-4)
        found = directions @ gradient(w)
        assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)
        assert objective(w) == objective(w)
        assert objective(w) != objective(w, t=1)
        values.append(objective(w).item())
    assert (values[0] == values[1]) == (vae._active == ())
    assert equal(vae.state_dict(), before)
    assert torch.equal(noise, torch.random.get_rng_state())


@by_options
def test_training_minimises_that_objective(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of step 0, with its very dropout; and validation is in evaluation mode, with what the step made of the statistics."""
    vae, y = made(options), rows_of(12)
    losses, _ = record(vae, monkeypatch)
    vae.fit(y, validation=y, seed=5, **{**QUICK, "max_epochs": 1, "learning_rate": 1e-300})
    with torch.no_grad():
        expected = vae.objective(vae, y, generator(5, "valid", 0, 0)).elbo.mean().item()
    assert vae.history.rows[0]["valid_elbo"] == pytest.approx(expected)  # in float32
    vae.train()
    objective, _ = vae.make_objective(next(iter(Batches(y, 64, seed=5))).rows)
    assert losses == [pytest.approx(objective(vae.pack_weights().numpy()).item(), rel=1e-9)]


@by_kind
@by_options
def test_rows_are_estimated_each_for_itself(options: dict[str, Any], convolutional: bool) -> None:
    """And always alike, even in training mode; only a step of the training draws dropout or follows the statistics."""
    vae, y = fitted(made(options, convolutional=convolutional)), rows_of(6)
    state = copy.deepcopy(vae.state_dict())
    with torch.no_grad():
        z = vae.inference(y).mean.expand(3, 6, 2)
        torch.testing.assert_close(paired(vae.generative, y)(z.clone()), vae.generative(z).log_prob(y))
    found = [(importance_sampling(mode, y, 20).log_likelihood, *mode.infer(y)) for mode in (vae, vae.train())]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    for n in range(6):
        torch.testing.assert_close(vae.infer(y[n : n + 1])[0], found[0][1][n : n + 1], rtol=1e-9, atol=1e-12)
    assert equal(vae.state_dict(), state)


@by_kind
@by_options
def test_files_carry_options_and_statistics(options: dict[str, Any], convolutional: bool, tmp_path: Path) -> None:
    vae, y = fitted(made(options, convolutional=convolutional)), rows_of()
    vae.save(tmp_path)
    loaded = VAE.load(tmp_path)
    assert equal(loaded.state_dict(), vae.state_dict())
    assert torch.equal(loaded.log_likelihood(y, 20), vae.log_likelihood(y, 20))
    card = Card.model_validate_json((tmp_path / "model.json").read_bytes())
    for architecture in (card.generative, card.inference):
        assert {name: getattr(architecture, name) for name in options} == options
    moved = [values for name, values in vae.state_dict().items() if name.endswith("running_mean")]
    assert all(values.abs().max() > 0 for values in moved)
    assert bool(moved) == (options.get("norm") == "batch")


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_fit_that_was_interrupted_ends_with_the_same_bits(epoch: int) -> None:
    """Weights and statistics, those of the best epoch, which is not the last."""
    settings: dict[str, Any] = {"max_epochs": 5, "learning_rate": 0.1}
    whole = fitted(made(EVERYTHING), **settings)
    assert int(np.argmax([row["valid_bound"] for row in whole.history.rows])) < 4
    memory = Memory(fails_after=epoch)
    with pytest.raises(KeyboardInterrupt):
        fitted(made(EVERYTHING), snapshots=memory, **settings)
    memory.fails_after = None
    resumed = fitted(made(EVERYTHING), snapshots=memory, **settings)
    assert equal(resumed.state_dict(), whole.state_dict())
    assert resumed.history.rows == whole.history.rows
    assert not equal(fitted(made(EVERYTHING), seed=1, **settings).state_dict(), whole.state_dict())


def test_the_best_epochs_statistics_are_kept() -> None:
    states: list[dict[str, Tensor]] = []

    class Recorder(pl.Callback):
        def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            assert not pl_module.training
            states.append(copy.deepcopy(pl_module.state_dict()))

    vae = fitted(made({"norm": "batch"}), max_epochs=8, learning_rate=0.3, callbacks=[Recorder()])
    best = int(np.argmax([row["valid_bound"] for row in vae.history.rows]))
    assert best < 7
    assert equal(vae.state_dict(), states[best])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_other_precisions(precision: str) -> None:
    vae = fitted(made(EVERYTHING, convolutional=True).float(), max_epochs=1, precision=precision)
    assert math.isfinite(vae.history.rows[0]["valid_elbo"])
    assert {values.dtype for values in vae.state_dict().values()} == {torch.float32}


def test_pseudo_inputs_go_through_a_network_at_rest() -> None:
    """Their prior is the same in training as in evaluation, and the statistics are those of the rows alone."""
    vae, y = made(EVERYTHING, prior={"name": "vamp", "components": 3}), rows_of()
    plain = made(EVERYTHING)
    plain.load_state_dict(
        {name: values for name, values in vae.state_dict().items() if not name.startswith("prior.")}, strict=False
    )
    z = torch.zeros(1, 2, dtype=torch.float64)
    expected = vae.prior().log_prob(z)
    with during(Step(generator(0, "step")), active_layers(vae)):
        assert torch.equal(vae.prior().log_prob(z), expected)
        assert all(layer.acts for layer in vae.modules() if isinstance(layer, Active))
    for model in (vae, plain):
        model(y, noise=generator(0, "step"))
    assert equal(vae.inference.state_dict(), plain.inference.state_dict())
    assert vae.inference.network[1].running_mean.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout must be less than 1; got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0; got -0.1"),
        ({"norm": "group"}, "norm must be one of none, batch, layer; got 'group'"),
        ({"hidden": [], "norm": "layer"}, r"norm and dropout stand between layers: set hidden .*; got hidden \[\]"),
        ({"hidden": [], "dropout": 0.1}, "norm and dropout stand between layers"),
        ({"hidden": [4, 1], "norm": "layer"}, r"norm 'layer' makes a lone number 0: .*; got hidden \[4, 1\]"),
        ({"hidden": [4, 5, 4], "residual": True}, r"residual is for neighbouring .*; got hidden \[4, 5, 4\]"),
        ({"hidden": [4], "residual": True}, r"set residual to false; got hidden \[4\]"),
    ],
)  # fmt: skip
def test_options_without_an_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0}, "model.generative.dropout: input should be less than 1; got 1.0"),
        ({"norm": "group"}, "model.generative.norm: input should be 'none', 'batch' or 'layer'; got 'group'"),
        ({"hidden": [], "norm": "batch"}, "model.generative: norm and dropout stand between layers: set hidden"),
        ({"residual": True}, r"model.generative: residual is for neighbouring hidden layers .*; got hidden \[96, 256\]"),
        ({"norm": "batch"}, "model.generative.norm: batch needs whole batches on one device: set train.devices to 1, or norm"),
        (
            {"norm": "batch"},
            "model.generative.norm: batch has no averaged statistics: set train.ema_decay to null",
        ),
    ],
)
def test_params_are_checked(changes: dict[str, Any], message: str) -> None:
    good = {"hidden": [96, 96], "dropout": 0.1, "norm": "layer", "residual": True}
    assert check_params(params_with({"model.generative": good})).model.generative.model_dump().items() >= good.items()
    with pytest.raises(InputError, match=message):
        check_params(
            params_with({"model.generative": {"hidden": [96, 256], **changes}, "train.devices": 2, "train.ema_decay": 0.9})
        )


def test_batch_norm_is_not_for_several_devices_or_averaged_weights() -> None:
    with pytest.raises(ValueError, match=r"devices must be 1 with norm 'batch', .*; got 2: set norm to 'layer'"):
        fitted(made({"norm": "batch"}), devices=2)
    with pytest.raises(ValueError, match=r"ema_decay must be None with norm 'batch', .*; got 0.9: set norm to 'layer'"):
        fitted(made({"norm": "batch"}), ema_decay=0.9)
    fitted(made({"norm": "layer", "dropout": 0.1}), ema_decay=0.9)
