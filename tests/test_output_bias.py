"""Where the generative network's output begins: at the marginal distribution of each column, whatever the latents are."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.model.building import build as build_model
from pipeline.params.whole import check_params
from pipeline.stages import prepare
from pipeline.tables.schema import load_schema
from tests.anchors import LIKELIHOODS, TOGETHER, rows_for, small_vae
from tests.workspace import params_with, write_params, write_table
from vae import VAE, likelihoods
from vae.distributions.noise import generator
from vae.options.registry import LIKELIHOODS as REGISTRY

QUICK: dict[str, Any] = {
    "accelerator": "cpu",
    "progress": False,
    "precision": "64-true",
    "max_epochs": 1,
    "learning_rate": 1e-300,
}
by_name = pytest.mark.parametrize("options", LIKELIHOODS + TOGETHER, ids=lambda o: o["name"])
# nats a row of the best: moments do not suffice for beta densities, and small variances are not begun with; else 0.01
WITHIN = {"beta": 0.25, "zero_one_inflated_beta": 0.25, "gaussian_heteroscedastic": 0.05}
NAN = torch.nan


def built(options: dict[str, Any], D: int = 4) -> likelihoods.Likelihood:
    keywords = {name: value for name, value in options.items() if name != "name"}
    module: likelihoods.Likelihood = REGISTRY[options["name"]].build(likelihoods, D, **keywords)
    return module.double()


def initial(y: list[list[float]], **options: Any) -> list[float]:
    """Outputs for rows."""
    return built(options, len(y[0])).initial_outputs(torch.tensor(y, dtype=torch.float64)).tolist()


@pytest.mark.parametrize("spread", [1.0, 2.5])
@by_name
def test_it_is_about_the_best_constant_output(options: dict[str, Any], spread: float) -> None:
    """Of 2,000 rows that the likelihood itself has drawn at some output away from 0."""
    module, noise = built(options), generator(0, "outputs")
    with torch.no_grad():
        f = spread * torch.randn(4 * module.features, generator=noise, dtype=torch.float64)
        y = module(f).sample((2000,), noise)
    first = module.initial_outputs(y)

    def loss(of: np.ndarray) -> tuple[float, np.ndarray]:
        f = torch.tensor(of, requires_grad=True)
        value = -module(f).log_prob(y).mean()
        value.backward()
        return value.item(), f.grad.numpy()

    found, zero = (loss(of.numpy())[0] for of in (first, torch.zeros_like(first)))
    best = minimize(loss, first.numpy(), jac=True, method="L-BFGS-B").fun
    assert found < best + WITHIN.get(options["name"], 0.01)
    assert found < zero - 0.1


EXTREMES = {
    "real": [-1e30, 0.0, 1e-30, 3e37],
    "positive": [1e-37, 1e-10, 1.0, 3e37],
    "unit": [1e-30, 0.5, 1 - 1e-7],
    "closed unit": [0.0, 1e-30, 0.5, 1 - 1e-7, 1.0],
    "count": [0.0, 1.0, 1e6, 1e30],
}


@by_name
def test_it_is_finite_for_all_values(options: dict[str, Any]) -> None:
    """Of constant columns and columns of two values or none, also as float32; and so is the probability of ordinary ones."""
    module = built(options, 2)
    name = module.support.name
    extremes = EXTREMES.get(name, [0.0, float(name.partition("..")[2] or 1)])
    columns = [[a, b] for a in extremes for b in extremes] + [[NAN, NAN], [NAN, extremes[0]]]
    y = torch.tensor(columns, dtype=torch.float64).T
    assert module.support.contains(y[~y.isnan()]).all()
    outputs = built(options, y.shape[1]).initial_outputs(y)
    assert outputs.float().isfinite().all()
    assert torch.equal(outputs.reshape(module.features, -1)[:, -2], torch.zeros(module.features).double())
    ordinary = (y.abs() < 1e7).all(dim=0) & (y.abs() > 1e-7).logical_or(y == 0).all(dim=0)
    kept = outputs.reshape(module.features, -1)[:, ordinary]
    for dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            p = built(options, int(ordinary.sum())).to(dtype)(kept.flatten().to(dtype))
            assert p.log_prob_columns(y[:, ordinary].to(dtype)).isfinite().all()


@by_name
def test_missing_values_do_not_count(options: dict[str, Any]) -> None:
    module, y = built(options), rows_for(options, 30)
    gaps = torch.cat([y, torch.full_like(y[:7], NAN)])
    torch.testing.assert_close(module.initial_outputs(gaps), module.initial_outputs(y))


def test_by_hand() -> None:
    rows = [[0.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    clipped = math.log(0.999 / 0.001)
    assert initial(rows, name="bernoulli") == pytest.approx([-clipped, clipped, math.log(1 / 3)])
    assert initial([[0.0], [0.5], [0.25]], name="bernoulli") == pytest.approx([math.log(1 / 3)])
    assert initial([[1.0, -5.0], [2.0, -5.0]], name="gaussian") == [1.5, -5]
    mean, spread = initial([[1.0], [5.0]], name="gaussian_heteroscedastic", min_variance=0.5)
    assert [mean, 0.5 + math.log1p(math.exp(spread))] == pytest.approx([3, 4])
    assert initial([[1.0], [2.0], [900.0]], name="student_t") == [2]
    assert initial([[1.0], [3.0]], name="gamma") == pytest.approx([math.log(2)])
    assert initial([[0.0, 0.0], [3.0, 0.0]], name="poisson") == pytest.approx([math.log(1.5), math.log(0.001)])
    assert initial([[0.0], [3.0]], name="binomial", trials=6) == pytest.approx([math.log(1 / 3)])
    levels = torch.tensor(initial([[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [1.0, 1.0]], name="categorical", levels=3))
    torch.testing.assert_close(
        levels.reshape(3, 2).softmax(dim=0)[:2], torch.tensor([[0.5, 0], [0.5, 0.75]]), atol=1e-3, rtol=0
    )
    assert initial([[0.0], [1.0], [1.0], [1.0]], name="ordinal", levels=2) == pytest.approx([math.log(3)])


def test_probabilities_stand_for_zeros_and_ones() -> None:
    """As rows of which each step draws binary values do."""
    p = torch.rand(50, 3, generator=generator(0, "p"), dtype=torch.float64)
    for options in ({"name": "bernoulli"}, {"name": "categorical", "levels": 2}, {"name": "ordinal", "levels": 2}):
        outputs = built(options, 3).initial_outputs(p)
        torch.testing.assert_close(built(options, 3)(outputs).mean.detach(), p.mean(dim=0), rtol=1e-9, atol=1e-9)


def test_zeros_and_mean_of_inflated_counts() -> None:
    """With r = 1: 30 % zeros beside geometric ones of mean 4, of which as many are 0."""
    counts = np.random.default_rng(0).geometric(1 / 5, 200_000) - 1.0
    counts[:60_000] = 0
    module = built({"name": "zero_inflated_negative_binomial"}, 1)
    log_mean, zero = module.initial_outputs(torch.from_numpy(counts)[:, None]).tolist()
    assert math.exp(log_mean) == pytest.approx(4, rel=0.02)
    assert 1 / (1 + math.exp(-zero)) == pytest.approx(0.3, abs=0.01)


def test_each_column_of_a_mixed_likelihood_has_its_own() -> None:
    columns = [{"name": "poisson"}, {"name": "gaussian"}, {"name": "categorical", "levels": 3}, {"name": "poisson"}]
    y = torch.tensor([[0.0, -3, 2, NAN], [4.0, NAN, 1, 7], [NAN, -5, 1, 9]], dtype=torch.float64)
    vae = VAE(
        {"hidden": []}, {"hidden": []}, data_dim=4, latent_dim=1, likelihood={"name": "mixed", "columns": columns}
    ).double()
    vae.generative.initialize(y)
    f = torch.tensor(vae.generative.network.last.bias.tolist())
    assert vae.generative.likelihood(f).mean.tolist() == pytest.approx([2, -4, 4 / 3, 8], abs=1e-3)


@by_name
def test_training_begins_there_and_nowhere_else_anew(options: dict[str, Any], tmp_path: Path) -> None:
    vae, y = small_vae(options), rows_for(options)
    before = copy.deepcopy(vae.state_dict())
    vae.fit(y, **QUICK)
    after = vae.state_dict()
    name = "generative.network.2.bias"
    torch.testing.assert_close(after[name], built(options).initial_outputs(y))
    changed = {key for key in before if not torch.allclose(before[key], after[key], rtol=0, atol=1e-200)}
    assert changed == {name}
    vae.save(tmp_path)
    for again in (vae, VAE.load(tmp_path)):
        again.fit(rows_for(options, seed=3), **QUICK)
        torch.testing.assert_close(again.state_dict()[name], after[name], rtol=0, atol=1e-200)


def test_it_can_be_left_random() -> None:
    layers: dict[str, Any] = {"hidden": [3]}
    vae = VAE(layers, layers, data_dim=4, latent_dim=2, output_bias="random").double()
    before = vae.pack_weights()
    assert torch.equal(vae.fit(rows_for({"name": "gaussian"}), **QUICK).pack_weights(), before)
    with pytest.raises(ValueError, match="output_bias must be one of data, random; got 'zero'"):
        VAE(layers, layers, data_dim=4, latent_dim=2, output_bias="zero")


def test_probabilities_that_are_drawn_from_begin_at_their_means() -> None:
    p = torch.rand(30, 4, generator=generator(0, "p"), dtype=torch.float64)
    vae = small_vae({"name": "bernoulli"}).fit(p, binarize=True, **QUICK)
    torch.testing.assert_close(vae.generative.network.last.bias.detach().sigmoid(), p.mean(dim=0))


@pytest.mark.parametrize(
    "options", [{"name": "gaussian_heteroscedastic"}, {"name": "ordinal", "levels": 4}], ids=lambda o: o["name"]
)
def test_pixels_of_a_channel_share_one(options: dict[str, Any]) -> None:
    """The bias is of all pixels of a channel as rows of one column; with that alone the output is the same for each."""
    layers = {"channels": [3, 2], "hidden": [4]}
    vae = VAE(layers, layers, data_dim=24, latent_dim=2, likelihood=options, shape=(4, 2, 3)).double()
    y = rows_for(options, 50, 24) % torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).repeat(8)
    vae.generative.initialize(y)
    with torch.no_grad():
        vae.generative.network.last.weight.zero_()
    outputs: Tensor = vae.generative.network(torch.ones(1, 2, dtype=torch.float64)).detach().reshape(-1, 8, 3)
    expected = built(options, 3).initial_outputs(y.reshape(-1, 3))
    torch.testing.assert_close(outputs, expected.reshape(-1, 1, 3).expand_as(outputs))
    assert len(expected.unique()) == len(expected)


def test_params_say_which(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace, **{"model.output_bias": "random"})
    prepare.main()
    for chosen in ("random", "data"):
        params = check_params(params_with({"data.shape": None, "model.output_bias": chosen}))
        assert build_model(params, load_schema()).output_bias == chosen
    with pytest.raises(InputError, match=r"model.output_bias: input should be 'data' or 'random'; got 'zero'"):
        check_params(params_with({"model.output_bias": "zero"}))
