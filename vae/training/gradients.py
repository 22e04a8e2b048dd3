"""How large the gradients of an epoch's steps are."""

from __future__ import annotations

import torch
from torch import Tensor

MEASURED = 32  # steps of an epoch, about: measuring all would take some percent of the time of small networks


class GradientNorms:
    """The mean over steps of an epoch of the norm of the mean loss's gradient, before clipping."""

    def __init__(self) -> None:
        self._sum, self._count = torch.zeros(()), torch.zeros(())

    @staticmethod
    def is_due(step: int, steps: int) -> bool:
        """Whether this step of so many in the epoch is one to measure; they are evenly spaced, and the first is one."""
        return step % max(1, steps // MEASURED) == 0

    def note_gradient(self, norm: Tensor) -> None:
        """Add a step's norm, a scalar, without waiting for the device.

        One that is not finite does not count: with 16-bit floats such a step is left out of training too.
        """
        finite = norm.isfinite()
        self._sum = self._sum.to(norm) + torch.where(finite, norm, 0)
        self._count = self._count.to(norm) + finite

    def mean(self) -> Tensor:
        """Over the steps that were noted, a scalar, 0 if there are none; starts anew."""
        mean = self._sum / self._count.clamp(min=1)
        self._sum, self._count = torch.zeros_like(self._sum), torch.zeros_like(self._count)
        return mean
