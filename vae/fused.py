"""A fully connected network as one operation while it trains, which writes its gradients where the optimiser reads them.

Autograd would make a node of each product, bias and activation, and add each gradient to zeros: a fifth of the time of a step
of a small network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu, softplus

from vae.layers import tanh_
from vae.networks import Feedforward

LARGE = 2**15  # numbers from which torch divides the work between threads
aten = torch.ops.aten


class Activation(NamedTuple):
    """An activation, and the gradient by its input x from that by its output: functions of x, and of (gradient, x, output)."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


def tanh(x: Tensor) -> Tensor:
    """In place of x; the four steps of `tanh_` pay for many numbers on a CPU."""
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

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (N, ...)."""
        return torch.addmm(self.bias, x, self.transposed)

    def write_gradients(self, x: Tensor, gradient: Tensor) -> None:
        """For rows x and the gradient by the outputs, both (N, ...)."""
        assert self.bias_gradient is not None
        torch.sum(gradient, dim=0, out=self.bias_gradient)
        torch.mm(*self._factors(x, gradient), out=self._into)

    def add_gradients(self, x: Tensor, gradient: Tensor) -> None:
        """To those that are there, likewise."""
        assert self.bias_gradient is not None
        self.bias_gradient.add_(gradient.sum(dim=0))
        self._into.addmm_(*self._factors(x, gradient))

    def _factors(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return (x.T, gradient) if self.by_columns else (gradient.T, x)


class Fused:
    """A `Feedforward` of linear layers with biases and activations, nothing else.

    Args:
        network: With ``grad`` of all its parameters where their gradients are to go.
    """

    def __init__(self, network: Feedforward) -> None:
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        self.layers = [Layer(layer) for layer in linear]
        self.activation = ACTIVATIONS[type(network[1])] if len(linear) > 1 else None
        self.parameters = [of for layer in linear for of in (layer.weight, layer.bias)]
        self.fresh = True

    @staticmethod
    def applies(network: Feedforward) -> bool:
        """Whether there is nothing else in the network."""
        linear, between = list(network)[::2], list(network)[1::2]
        return all(type(layer) is nn.Linear and layer.bias is not None for layer in linear) and all(
            type(layer) in ACTIVATIONS for layer in between
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (N, input_dim) -> (N, output_dim)."""
        output: Tensor = Pass.apply(x, self, *self.parameters)
        return output

    def finish(self) -> None:
        """After a step's gradients have been computed: nothing of an earlier step may be left."""
        if self.fresh:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.grad.zero_()
        self.fresh = True


class Pass(torch.autograd.Function):
    """Through all layers and back; the gradient by the weights is written by the way, not returned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, network: Fused, *parameters: Tensor) -> Tensor:
        """Rows (N, input_dim); the parameters are those of the network, so that a gradient is asked for."""
        ctx.network, ctx.inputs, ctx.before = network, [x], []
        for layer in network.layers[:-1]:
            assert network.activation is not None
            before = layer(ctx.inputs[-1])
            ctx.before.append(before)
            ctx.inputs.append(network.activation.forward(before))
        output: Tensor = network.layers[-1](ctx.inputs[-1])
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """By the rows, if it is asked for."""
        network: Fused = ctx.network
        first, network.fresh = network.fresh, False
        for k in range(len(network.layers) - 1, -1, -1):
            layer = network.layers[k]
            (layer.write_gradients if first else layer.add_gradients)(ctx.inputs[k], gradient)
            if k:
                assert network.activation is not None
                gradient = torch.mm(gradient, layer.weight)
                gradient = network.activation.backward(gradient, ctx.before[k - 1], ctx.inputs[k])
        to_rows = torch.mm(gradient, network.layers[0].weight) if ctx.needs_input_grad[0] else None
        return to_rows, *[None] * (1 + len(network.parameters))
