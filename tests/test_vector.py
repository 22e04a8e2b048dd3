"""Weights in one vector, and networks as one operation: the same gradients as autograd's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.anchors import rows_for, small_vae
from vae import VAE
from vae.distributions.noise import generator, of_step
from vae.model.networks import Feedforward, linear
from vae.objectives import ELBO, IWAE, PIWAE, BetaELBO, DReG, FreeBits, Objective, StickingTheLanding, Values
from vae.options.architecture import ACTIVATIONS as NAMES
from vae.options.architecture import Architecture
from vae.training.fast.fused import ACTIVATIONS, LARGE, Fused, tanh
from vae.training.fast.fused_terms import terms_of_steps
from vae.training.fast.vector import VectorAdam, WeightVector

GAUSSIAN = {"name": "gaussian"}


def network(activation: str, hidden: tuple[int, ...] = (7, 3, 5)) -> Feedforward:
    torch.manual_seed(0)
    return Feedforward(Architecture(hidden=hidden, activation=activation), 6, 4).double()


def gradients(of: nn.Module, *, fuse: bool, uses: int = 1) -> tuple[torch.Tensor, ...]:
    """Outputs, and gradients by inputs and by all weights, of a network that is used so many times."""
    vector = WeightVector(of)
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    for _ in range(2):  # a step leaves nothing behind for the next
        vector.bind(fuse=fuse)
        vector.clear()
        x.grad = None
        outputs = [of((k + 1) * x) for k in range(uses)]
        torch.stack([output.square().sum() * (k + 1) for k, output in enumerate(outputs)]).sum().backward()
        vector.finish()
    found = torch.cat([weight.grad.reshape(-1) for weight in of.parameters()])
    assert x.grad is not None
    result = outputs[-1].detach(), x.grad.clone(), found
    vector.release()
    return result


@pytest.mark.parametrize("uses", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_fused_networks_have_autograds_gradients(name: str, uses: int) -> None:
    assert Fused.applies(network(name))
    for plain, fused in zip(*(gradients(network(name), fuse=fuse, uses=uses) for fuse in (False, True)), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-14)


def test_affine_networks_are_fused_too() -> None:
    for plain, fused in zip(*(gradients(network("tanh", ()), fuse=fuse) for fuse in (False, True)), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-14)


def test_every_activation_can_be_fused() -> None:
    assert {activation.__name__ for activation in ACTIVATIONS} == {entry.class_name for entry in NAMES.values()}


@pytest.mark.parametrize("option", [{"norm": "layer"}, {"norm": "batch"}, {"dropout": 0.1}, {"residual": True}])
def test_other_networks_are_left_to_autograd(option: dict[str, Any]) -> None:
    assert not Fused.applies(Feedforward(Architecture(hidden=(5, 5), **option), 6, 4))


def test_tanh_of_many_numbers_is_tanh() -> None:
    x = torch.linspace(-30, 30, LARGE + 1)
    torch.testing.assert_close(tanh(x.clone()), x.tanh(), rtol=0, atol=3e-7)


def test_a_network_that_a_step_does_not_use_has_no_gradient() -> None:
    pair = nn.ModuleList([network("tanh"), network("tanh")])
    vector = WeightVector(pair)
    for used in (0, 1):
        vector.bind(fuse=True)
        vector.clear()
        pair[used](torch.ones(3, 6, dtype=torch.float64)).sum().backward()
        vector.finish()
    assert all(weight.grad.abs().sum() == 0 for weight in pair[0].parameters())
    assert all(weight.grad.abs().sum() > 0 for weight in pair[1].parameters())


def step_gradient(vae: VAE, y: torch.Tensor, *, fuse: bool) -> tuple[Values, torch.Tensor]:
    vector = WeightVector(vae)
    vector.bind(fuse=fuse)
    vector.clear()
    terms = terms_of_steps(vae.objective, vector.fused)(vae, y, vae.objective.draws, generator(0, "x"))
    values = vae.objective.values(terms, epoch=0.5)
    values.loss.mean().backward()
    vector.finish()
    found = vector.gradient.clone()
    vector.release()
    return values, found


FOR_ANY_PRIOR: tuple[Objective, ...] = (
    ELBO(1),
    ELBO(3),
    BetaELBO(2, beta=3.0, schedule="linear", epochs=2.0),
    StickingTheLanding(3),
    IWAE(4),
    PIWAE(2, averages=3),
    DReG(4),
)
OBJECTIVES = (
    *FOR_ANY_PRIOR,
    ELBO(1, "closed_form"),
    ELBO(3, "closed_form"),
    BetaELBO(2, "closed_form", beta=3.0),
    FreeBits(2, nats=0.01),
    FreeBits(2, "closed_form", nats=0.01),
)


@pytest.mark.parametrize("likelihood", ["gaussian_per_dimension", "bernoulli"])
@pytest.mark.parametrize(
    ("objective", "prior"),
    [
        *((objective, "standard_normal") for objective in OBJECTIVES),
        *((objective, prior) for objective in FOR_ANY_PRIOR for prior in ("gaussian_mixture", "vamp")),
    ],
    ids=str,
)
def test_a_models_step_is_autograds(objective: Objective, prior: str, likelihood: str) -> None:
    """A VampPrior's step uses the inference network twice. Standard deviations are on both sides of 1."""
    settings: dict[str, Any] = {"prior": prior, "data_dim": 4, "latent_dim": 2, "likelihood": likelihood}
    vae = VAE({"hidden": (6, 3)}, {"hidden": (7,)}, objective=objective, **settings).double()
    torch.nn.init.normal_(vae.inference.network.last.weight, generator=torch.Generator().manual_seed(0))
    y = rows_for(GAUSSIAN) if likelihood != "bernoulli" else (rows_for(GAUSSIAN) > 0).double()
    with torch.no_grad():
        stddev = vae.inference(y).stddev
    assert stddev.min() < 0.9
    assert stddev.max() > 1.1
    (values, gradient), (plain, expected) = (step_gradient(vae, y, fuse=fuse) for fuse in (True, False))
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    for name in ("loss", "reconstruction", "kl", "bound"):
        torch.testing.assert_close(getattr(values, name), getattr(plain, name), rtol=1e-10, atol=1e-12)


def test_a_step_by_the_vectors_adam_is_torchs() -> None:
    """But for rounding, as vector instructions do not end where weights do; also after a state has been loaded."""
    modules = [network("tanh").float() for _ in range(2)]
    settings: dict[str, Any] = {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.2, "fused": True}
    weights, torchs = WeightVector(modules[0]), torch.optim.Adam(modules[1].parameters(), **settings)
    weights.bind(fuse=False)
    own = VectorAdam(weights, **settings)
    for step in range(6):
        if step == 4:
            state = copy.deepcopy(own.state_dict())
            own = VectorAdam(weights, **settings)
            own.load_state_dict(state)
        for pair in zip(*(module.parameters() for module in modules), strict=True):
            gradient = (pair[1].detach() + step).sin()
            assert pair[0].grad is not None
            pair[0].grad.copy_(gradient)
            pair[1].grad = gradient
        for of in (own, torchs):
            of.param_groups[0]["lr"] = 0.1 / (1 + step)
        own.update()
        torchs.step()
    for pair in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-7)


def test_seeds_of_steps_are_functions_of_their_address() -> None:
    """Also between blocks of 64, in any order."""
    steps = [0, 63, 64, 1000, 63, 0]
    found = [torch.rand(3, generator=of_step(1, "train", step, 0)).tolist() for step in steps]
    assert found[0] == found[5]
    assert found[1] == found[4]
    others = [of_step(2, "train", 0, 0), of_step(1, "valid", 0, 0), of_step(1, "train", 0, 1)]
    distinct = {tuple(numbers) for numbers in found + [torch.rand(3, generator=other).tolist() for other in others]}
    assert len(distinct) == 7


def test_weights_are_views_while_bound_and_their_own_afterwards() -> None:
    vae = small_vae(GAUSSIAN)
    before, strides = vae.pack_weights(), [weight.stride() for weight in vae.parameters()]
    vector = WeightVector(vae)
    vector.bind(fuse=True)
    assert torch.equal(vae.pack_weights(), before)
    with torch.no_grad():
        vector.vector.mul_(2)
    assert torch.equal(vae.pack_weights(), 2 * before)
    assert all(weight.data_ptr() % 64 == 0 for weight in vae.parameters())
    vector.release()
    assert torch.equal(vae.pack_weights(), 2 * before)
    assert [weight.stride() for weight in vae.parameters()] == strides
    assert len({weight.untyped_storage().data_ptr() for weight in vae.parameters()}) == len(strides)
    assert all(weight.grad is None for weight in vae.parameters())
    assert "forward" not in vars(vae.inference.network) | vars(vae.generative.network)


def test_narrowing_layers_lie_column_by_column_and_compute_the_same() -> None:
    torch.manual_seed(0)
    wide, plain = linear(8, 3), nn.Linear(8, 3)
    plain.load_state_dict(wide.state_dict())
    assert wide.weight.stride() == (1, 3)
    assert linear(3, 8).weight.is_contiguous()
    x = torch.randn(5, 8)
    torch.testing.assert_close(wide(x), plain(x))
