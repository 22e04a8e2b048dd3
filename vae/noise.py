"""Random numbers as a pure function of their address: (seed, name of the stream, integers).

Nothing draws from torch's global generator, so results do not depend on what ran before, and a resumed run draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

DRAWS_PER_BLOCK = 128


def generator(seed: int, stream: str, *address: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one address, e.g. ``generator(seed, "train", step)``.

    The seed is mixed by numpy's `SeedSequence`, which makes neighbouring addresses independent.
    """
    entropy = [seed, int.from_bytes(stream.encode(), "little"), len(address), *address]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) % 2**63)


def per_example(seed: int, stream: str, ids: Tensor, block: int, size: int, like: Tensor) -> Tensor:
    """Standard normal noise (DRAWS_PER_BLOCK, N, size), with one address per example and block of draws.

    An example's noise depends on its id alone, not on the examples around it: batches can be cut anywhere.

    Args:
        seed: The experiment's seed.
        stream: What the noise is for.
        ids: Example ids, integers of shape (N,).
        block: Number of the block of draws.
        size: Numbers per draw.
        like: A tensor whose dtype and device the noise takes.
    """
    draws = [
        torch.randn(
            DRAWS_PER_BLOCK,
            size,
            generator=generator(seed, stream, example, block, device=like.device),
            dtype=like.dtype,
            device=like.device,
        )
        for example in ids.tolist()
    ]
    return torch.stack(draws, dim=1)
