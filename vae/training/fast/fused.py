"""A fully connected network as one operation while it trains, which writes its gradients where the optimiser reads them.

Autograd would make a node of each product, bias and activation, and add each gradient to zeros: a fifth of the time of a step
of a small network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, relu, silu, softplus

from vae.model.layers import tanh_
from vae.model.networks import Feedforward

LARGE = 2**15  # numbers from which torch divides the work between threads
aten = torch.ops.aten


class Activation(NamedTuple):
    """An activation, and the gradient by its input x from that by its output: functions of x, and of (gradient, x, output)."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


def tanh(x: Tensor) -> Tensor:
    """Take tanh in place of x; the four steps of `tanh_` pay for many numbers on a CPU."""
    return tanh_(x) if x.is_cpu and x.numel() >= LARGE else x.tanh_()


ACTIVATIONS: Mapping[type[nn.Module], Activation] = {
    nn.Tanh: Activation(tanh, lambda gradient, x, output: aten.tanh_backward(gradient, output)),
    nn.ReLU: Activation(relu, lambda gradient, x, output: aten.threshold_backward(gradient, output, 0)),
    nn.Softplus: Activation(softplus, lambda gradient, x, output: aten.softplus_backward(gradient, x, 1, 20)),
    nn.SiLU: Activation(silu, lambda gradient, x, output: aten.silu_backward(gradient, x)),
    nn.GELU: Activation(gelu, lambda gradient, x, output: aten.gelu_backward(gradient, x)),
}


class Layer:
    """A linear map, and where its gradients go.

    Args:
        linear: With ``grad`` of its parameters.
    """

    def __init__(self, linear: nn.Linear) -> None:
        assert linear.weight.grad is not None
        self.weight, self.transposed, self.bias = linear.weight.detach(), linear.weight.detach().T, linear.bias.detach()
        self.by_columns = not self.weight.is_contiguous()
        self.weight_gradient, self.bias_gradient = linear.weight.grad, linear.bias.grad
        self._into = self.weight_gradient.T if self.by_columns else self.weight_gradient

    def write_gradients(self, x: Tensor, gradient: Tensor) -> None:
        """Write those by the weights, for rows x and the gradient by the outputs, both (N, ...)."""
        assert self.bias_gradient is not None
        torch.sum(gradient, dim=0, out=self.bias_gradient)
        torch.mm(*self._factors(x, gradient), out=self._into)

    def add_gradients(self, x: Tensor, gradient: Tensor) -> None:
        """Add to those that are there, likewise."""
        assert self.bias_gradient is not None
        self.bias_gradient.add_(gradient.sum(dim=0))
        self._into.addmm_(*self._factors(x, gradient))

    def _factors(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return (x.T, gradient) if self.by_columns else (gradient.T, x)


class Passed(NamedTuple):
    """The inputs of layers, the rows (N, input_dim) at first, and those of activations."""

    inputs: list[Tensor]
    before: list[Tensor]


class Fused:
    """A `Feedforward` of linear layers with biases and activations, nothing else.

    Args:
        network: With ``grad`` of all its parameters where their gradients are to go.
    """

    def __init__(self, network: Feedforward) -> None:
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        self.layers = [Layer(layer) for layer in linear]
        self.activation = ACTIVATIONS[type(network[1])] if len(linear) > 1 else None
        self.parameters = [*network.parameters()]
        self.parameter, self.fresh = self.parameters[0], True

    @staticmethod
    def applies(network: Feedforward) -> bool:
        """Whether a network has no other layers."""
        linear, between = list(network)[::2], list(network)[1::2]
        return all(type(layer) is nn.Linear and layer.bias is not None for layer in linear) and all(
            type(layer) in ACTIVATIONS for layer in between
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Passed]:
        """Take rows (N, input_dim) to (N, output_dim), with what `backward` needs."""
        inputs, before = [x], list[Tensor]()
        for layer in self.layers[:-1]:
            assert self.activation is not None
            before.append(torch.addmm(layer.bias, inputs[-1], layer.transposed))
            inputs.append(self.activation.forward(before[-1]))
        last = self.layers[-1]
        return torch.addmm(last.bias, inputs[-1], last.transposed), Passed(inputs, before)

    def backward(self, passed: Passed, gradient: Tensor, *, to_rows: bool) -> Tensor | None:
        """Write gradients by weights, given that by the output (N, output_dim); return that by rows, if it is asked for."""
        first, self.fresh = self.fresh, False
        for k in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[k]
            (layer.write_gradients if first else layer.add_gradients)(passed.inputs[k], gradient)
            if k:
                assert self.activation is not None
                gradient = torch.mm(gradient, layer.weight)
                gradient = self.activation.backward(gradient, passed.before[k - 1], passed.inputs[k])
        return torch.mm(gradient, self.layers[0].weight) if to_rows else None

    def finish(self) -> None:
        """Set gradients to zero that the step did not write: nothing of an earlier step may be left."""
        if self.fresh:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.grad.zero_()
        self.fresh = True


class Pass(torch.autograd.Function):
    """A pass through all layers and back; the gradient by the weights is written by the way, not returned."""

    @staticmethod
    def forward(ctx: Any, network: Fused, parameter: Tensor, x: Tensor) -> Tensor:
        """Take rows (..., input_dim) to (..., output_dim); with a parameter of the network a gradient is asked for."""
        output, ctx.passed = network.forward(x.reshape(-1, x.shape[-1]))
        ctx.network = network
        return output.view(*x.shape[:-1], output.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None]:
        """Return the gradient by the rows, if it is asked for."""
        by_output = gradient.reshape(-1, gradient.shape[-1])
        by_x = ctx.network.backward(ctx.passed, by_output, to_rows=ctx.needs_input_grad[2])
        return None, None, None if by_x is None else by_x.view(*gradient.shape[:-1], by_x.shape[-1])
