"""Layers of networks beside linear maps and activations: skip connections, norms and dropout.

Dropout and batch norm are active in a step of the training only, which says so by `during`: estimates are never random, and no
row's depends on others, whatever mode the model is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from typing_extensions import override

MOMENTUM, EPSILON = 0.1, 1e-5  # torch's
LayerNorm = nn.LayerNorm


def tanh_(x: Tensor) -> Tensor:
    """In place, as 2 sigmoid(2 x) - 1: torch's sigmoid is much faster than its tanh on CPUs. Off by rounding."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


class Step(NamedTuple):
    """A step of the training: what its dropout is drawn from; None is torch's global generator."""

    generator: torch.Generator | None = None


class Active(nn.Module):
    """A layer that does something else in a step of the training, in training mode.

    Attributes:
        step: That is going on, if one is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step: Step | None = None

    @property
    def acts(self) -> bool:
        """Whether it does something else now."""
        return self.training and self.step is not None


def active_layers(module: nn.Module) -> tuple[Active, ...]:
    """The layers in ``module`` that do something else in a step."""
    return tuple(layer for layer in module.modules() if isinstance(layer, Active))


@contextmanager
def during(step: Step | None, layers: Sequence[Active]) -> Iterator[None]:
    """Let ``layers`` know that this step is going on, or, with None, that none is."""
    before = [layer.step for layer in layers]
    for layer in layers:
        layer.step = step
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.step = was


class Dropout(Active):
    """Each number is 0 with probability p, else divided by 1 - p (Srivastava et al. 2014, "Dropout").

    torch's own draws from the global generator, with which a resumed training would draw other numbers.

    Args:
        p: From 0 to below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Numbers like x, of any shape, some of them 0 in a step of the training."""
        if not self.acts:
            return x
        assert self.step is not None
        kind: dict[str, Any] = {"dtype": torch.float32, "device": x.device}  # of any x: bfloat16 would be too coarse
        return x * (torch.rand(self._drawn(x), generator=self.step.generator, **kind) >= self.p) / (1 - self.p)

    def _drawn(self, x: Tensor) -> torch.Size:
        return x.shape

    @override
    def extra_repr(self) -> str:
        return f"p={self.p}"


class MapDropout(Dropout):
    """Dropout of whole channels of maps (N, C, h, w), as neighbouring numbers tell the same (Tompson et al. 2015)."""

    @override
    def _drawn(self, x: Tensor) -> torch.Size:
        return torch.Size([*x.shape[:2], 1, 1])


class BatchNorm(Active):
    """Batch norm (Ioffe and Szegedy 2015) of (..., width), as torch's: all leading dimensions are the batch.

    In a step of the training it is by mean and variance of the batch, which the running ones follow; else by the running ones,
    and so it is where the batch is a single row, which has no variance. Weights that `torch.func.functional_call` puts in
    place of the layer's own leave the running ones alone.

    Args:
        width: Numbers that have a mean and a variance each.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Numbers of the shape of x."""
        rows = self._rows(x)
        by_batch = self.acts and rows.numel() > len(self.weight)
        follows = not by_batch or isinstance(self.weight, nn.Parameter)
        mean, variance = (self.running_mean, self.running_var) if follows else (None, None)
        return batch_norm(rows, mean, variance, self.weight, self.bias, by_batch, MOMENTUM, EPSILON).reshape(x.shape)

    def _rows(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])


class MapBatchNorm(BatchNorm):
    """Batch norm of maps (N, C, h, w), each channel over all places."""

    @override
    def _rows(self, x: Tensor) -> Tensor:
        return x


class MapLayerNorm(nn.GroupNorm):
    """Layer norm of maps (N, C, h, w): over all channels and places of each."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


class Skip(nn.Sequential):
    """x + what the layers make of x."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Numbers of the shape of x."""
        changed: Tensor = super().forward(x)
        return x + changed
