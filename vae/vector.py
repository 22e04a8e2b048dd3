"""The weights of a model in one vector while it trains: one update, one norm, one average in place of one for each weight."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

from vae.fused import Fused
from vae.networks import Feedforward

ALIGNMENT = 16  # numbers, so that each weight begins where a cache line does


class WeightVector:
    """Makes the parameters of a module views of one vector, and their gradients views of its gradient.

    A weight that lies in memory column by column stays so; Adam's fused step would copy it as it is.

    Args:
        module: Whose parameters have one dtype and are on one device.

    Attributes:
        vector: All of them, with zeros between.
        gradient: By them.
    """

    def __init__(self, module: nn.Module) -> None:
        self._weights = list(module.parameters())
        like = self._weights[0].detach()
        self.vector = nn.Parameter(like.new_zeros(length(module)))
        self.gradient = torch.zeros_like(self.vector)
        self._gradients = self._parts(self.gradient)
        self._rest, self._fused = [self.gradient], list[Fused]()
        of_module = [network for network in module.modules() if isinstance(network, Feedforward)]
        self._networks = [network for network in of_module if Fused.applies(network)]
        for weight, part in zip(self._weights, self._parts(self.vector.detach()), strict=True):
            part.copy_(weight.detach())
            weight.data = part

    def bind(self, *, fuse: bool) -> None:
        """Let gradients be written into `gradient`, also where Lightning has just removed them.

        Args:
            fuse: Whether fully connected networks may do without autograd.
        """
        self.vector.grad = self.gradient
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = gradient
        if fuse and not self._fused:
            self._fuse()

    def clear(self) -> None:
        """Before a step: no gradients, but those that a fused network will overwrite."""
        for gradient in self._rest:
            gradient.zero_()

    def finish(self) -> None:
        """After a step's gradients have been computed."""
        for fused in self._fused:
            fused.finish()

    def _fuse(self) -> None:
        for network in self._networks:
            network.fused = fused = Fused(network)
            self._fused.append(fused)
        written = {id(weight) for fused in self._fused for weight in fused.parameters}
        pairs = zip(self._weights, self._gradients, strict=True)
        self._rest = [gradient for weight, gradient in pairs if id(weight) not in written]

    def release(self) -> None:
        """Give each weight memory of its own again."""
        for network in self._networks:
            network.fused = None
        for weight in self._weights:
            weight.data, weight.grad = weight.detach().clone(), None

    def _parts(self, vector: Tensor) -> list[Tensor]:
        """Views of ``vector``, one for each weight, that lie in memory as it does."""
        starts = accumulate(map(_padded, self._weights[:-1]), initial=0)
        parts = zip(self._weights, starts, strict=True)
        return [vector.as_strided(weight.shape, _dense(weight).stride(), start) for weight, start in parts]


def length(module: nn.Module) -> int:
    """Of the vector."""
    return sum(map(_padded, module.parameters()))


def _padded(weight: Tensor) -> int:
    return -(-weight.numel() // ALIGNMENT) * ALIGNMENT


def _dense(weight: Tensor) -> Tensor:
    """With the strides that a copy of it has."""
    return torch.empty_like(weight.detach(), device="meta")
