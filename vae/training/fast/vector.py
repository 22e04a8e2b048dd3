"""The weights of a model in one vector while it trains: one update, one norm, one average in place of one for each weight."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from vae.model.networks import Feedforward
from vae.training.fast.fused import Fused, Pass

ALIGNMENT = 16  # numbers, so that each weight begins where a cache line does


class WeightVector:
    """Makes the parameters of a module views of one vector, and their gradients views of its gradient.

    A weight that lies in memory column by column stays so; Adam's fused step would copy it as it is.

    Args:
        module: Whose parameters have one dtype and are on one device.

    Attributes:
        vector: All parameters, with zeros between.
        gradient: That by the vector.
        sizes: Numbers of the vector that each weight takes.
        fused: What computes networks in their place.
    """

    def __init__(self, module: nn.Module) -> None:
        self._weights = list(module.parameters())
        self.sizes = [_padded(weight) for weight in self._weights]
        like = self._weights[0].detach()
        self.vector = nn.Parameter(like.new_zeros(sum(self.sizes)))
        self.gradient = torch.zeros_like(self.vector)
        self._gradients = self._parts(self.gradient)
        self._rest, self.fused = [self.gradient], dict[nn.Module, Fused]()
        self._networks = [part for part in module.modules() if isinstance(part, Feedforward) and Fused.applies(part)]
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
        if not fuse or self.fused:
            return
        for network in self._networks:
            self.fused[network] = fused = Fused(network)
            network.forward = partial(Pass.apply, fused, fused.parameter)  # type: ignore[method-assign]
        written = {id(weight) for fused in self.fused.values() for weight in fused.parameters}
        pairs = zip(self._weights, self._gradients, strict=True)
        self._rest = [gradient for weight, gradient in pairs if id(weight) not in written]

    def clear(self) -> None:
        """Set gradients to zero before a step, but for those that a fused network will overwrite."""
        for gradient in self._rest:
            gradient.zero_()

    def finish(self) -> None:
        """Complete a step's gradients, which have been computed."""
        for fused in self.fused.values():
            fused.finish()

    def release(self) -> None:
        """Give each weight memory of its own again."""
        for network in self.fused:
            del network.forward
        for weight in self._weights:
            weight.data, weight.grad = weight.detach().clone(), None

    def _parts(self, vector: Tensor) -> list[Tensor]:
        """Views of ``vector``, one for each weight, that lie in memory as a copy of it would."""
        copies = [torch.empty_like(weight.detach(), device="meta") for weight in self._weights]
        starts = accumulate(self.sizes[:-1], initial=0)
        return [vector.as_strided(copy.shape, copy.stride(), start) for copy, start in zip(copies, starts, strict=True)]


class VectorAdam(torch.optim.Adam):
    """Adam of a `WeightVector`, by torch's own operation.

    `step` does the same, but sorts parameters by device and dtype first, and divides the vector between threads in halves, of
    which each thread has to fetch what the other has computed: together a fifth of the time of a step of a small network.

    Args:
        weights: To be updated.
        settings: Of torch's Adam.
    """

    def __init__(self, weights: WeightVector, **settings: Any) -> None:
        super().__init__([weights.vector], **settings)
        self._sizes = weights.sizes
        self._whole: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def update(self) -> None:
        """Take a step; the first is left to `step`, which makes the state."""
        (group,) = self.param_groups
        (vector,) = group["params"]
        if not (state := self.state.get(vector)):
            self.step()
            return
        state["step"].add_(1)
        weights, gradients, first_moments, second_moments = self._parts(
            vector, vector.grad, state["exp_avg"], state["exp_avg_sq"]
        )
        torch._fused_adam_(
            weights,
            gradients,
            first_moments,
            second_moments,
            [],
            [state["step"]] * len(self._sizes),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _parts(self, *whole: Tensor) -> list[tuple[Tensor, ...]]:
        """Parts of these vectors, one for each weight; the same as in the last step, unless a state has been loaded."""
        if len(self._whole) != len(whole) or any(now is not last for now, last in zip(whole, self._whole, strict=True)):
            self._whole, self._split = whole, [vector.detach().split(self._sizes) for vector in whole]
        return self._split


def length(module: nn.Module) -> int:
    """The length of the vector of a module's weights."""
    return sum(map(_padded, module.parameters()))


def _padded(weight: Tensor) -> int:
    return -(-weight.numel() // ALIGNMENT) * ALIGNMENT
