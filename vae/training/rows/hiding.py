"""Values hidden at random while training, so that the inference network learns to do with what it is given."""

from __future__ import annotations

import torch
from torch import Tensor


def hide(y: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows y (N, D) of which a random ``share`` has lost some values, which are NaN, and which rows were left whole, (N,).

    How much a row loses is uniform between nothing and all of it; each of its values is as likely to go. The first row stays
    whole.
    """
    chosen, loss = (torch.rand(len(y), 1, generator=generator, device=y.device) for _ in range(2))
    lost = torch.rand(y.shape, generator=generator, device=y.device) < loss
    whole = (chosen >= share).squeeze(1)
    whole[:1] = True
    return y.masked_fill(lost & ~whole[:, None], torch.nan), whole
