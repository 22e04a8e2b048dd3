"""Weights in one vector, and networks as one operation: the same gradients as autograd's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.anchors import rows_for, small_vae
from vae import VAE
from vae.fused import ACTIVATIONS, LARGE, Fused, tanh
from vae.networks import Architecture, Feedforward, linear
from vae.noise import generator
from vae.registry import ACTIVATIONS as NAMES
from vae.vector import WeightVector

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
    assert {activation.__name__ for activation in ACTIVATIONS} == set(NAMES.values())


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


@pytest.mark.parametrize("prior", ["standard_normal", "vamp"])
def test_a_models_step_is_autograds(prior: str) -> None:
    """A VampPrior's step uses the inference network twice."""
    settings: dict[str, Any] = {
        "prior": {"name": prior},
        "data_dim": 4,
        "latent_dim": 2,
        "likelihood": "gaussian_per_dimension",
    }
    vae, y = VAE({"hidden": (6, 3)}, {"hidden": (7,)}, **settings).double(), rows_for(GAUSSIAN)

    def gradient(*, fuse: bool) -> torch.Tensor:
        vector = WeightVector(vae)
        vector.bind(fuse=fuse)
        vector.clear()
        vae.objective(vae, y, generator(0, "x")).loss.mean().backward()
        vector.finish()
        found = vector.gradient.clone()
        vector.release()
        return found

    torch.testing.assert_close(gradient(fuse=True), gradient(fuse=False), rtol=1e-10, atol=1e-12)


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


def test_narrowing_layers_lie_column_by_column_and_compute_the_same() -> None:
    torch.manual_seed(0)
    wide, plain = linear(8, 3), nn.Linear(8, 3)
    plain.load_state_dict(wide.state_dict())
    assert wide.weight.stride() == (1, 3)
    assert linear(3, 8).weight.is_contiguous()
    x = torch.randn(5, 8)
    torch.testing.assert_close(wide(x), plain(x))
