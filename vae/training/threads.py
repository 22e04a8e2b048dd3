"""How many CPU threads train: as many as pay, by the size of a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

PAYING = 2**26  # operations of a step's forward pass


def paying_threads(vae: LatentModel, batch_size: int, draws: int) -> int:
    """Two where a step is large, and one elsewhere: never by the number of cores, as the bytes depend on it.

    Threads wait for each other after each operation. Where operations take microseconds a second thread gains little on an
    idle machine, and on a busy one each wait may last until a core is free; `benchmarks/contention.py` measures it.

    Args:
        vae: The model.
        batch_size: Rows of a step.
        draws: Latents of a row in a step.
    """
    like = next(vae.parameters())
    y, z = (like.new_zeros(1, size) for size in (vae.card.data_dim, vae.card.latent_size))
    with torch.no_grad(), FlopCounterMode(display=False) as inference:
        vae.inference(y)
    with torch.no_grad(), FlopCounterMode(display=False) as generative:
        vae.generative(z)
    operations = batch_size * (inference.get_total_flops() + draws * generative.get_total_flops())
    return 2 if operations >= PAYING else 1


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Use so many threads within the block, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
