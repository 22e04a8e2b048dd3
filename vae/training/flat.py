"""All parameters of a module as one flat vector, as optimisers outside torch want them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def pack(module: nn.Module) -> Tensor:
    """The parameters of ``module``, in their order, as one vector."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def unpack(module: nn.Module, params: Tensor) -> Weights:
    """A vector as parameters of ``module`` by name, differentiably.

    Raises:
        ValueError: If the vector has the wrong length.
    """
    names, shapes = zip(*((name, p.shape) for name, p in module.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]
    if params.shape != (sum(sizes),):
        raise ValueError(f"params must have shape ({sum(sizes)},); got {tuple(params.shape)}")
    values = (part.view(shape) for part, shape in zip(params.split(sizes), shapes, strict=True))
    return dict(zip(names, values, strict=True))


def gradient(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The gradient of a scalar ``function`` of a flat tensor and t by its first argument.

    Not `torch.func.grad`: for that, each `torch.autograd.Function` looks up its own signature at every call, also in training.
    """

    def gradient_at(params: Tensor, t: int = 0) -> Tensor:
        at = params.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(function(at, t), at)[0]

    return gradient_at


def numpy_too(function: Callable[..., Tensor], like: Tensor) -> Callable[..., Any]:
    """``function`` of a flat tensor and t, which also takes a numpy vector and then returns numpy.

    Args:
        function: What to wrap.
        like: A tensor whose dtype and device the numpy vector takes.
    """

    def either(params: Tensor | np.ndarray, t: int = 0) -> Any:
        if isinstance(params, Tensor):
            return function(params, t)
        return function(torch.as_tensor(params).to(like), t).detach().cpu().numpy().astype(np.float64)

    return either
