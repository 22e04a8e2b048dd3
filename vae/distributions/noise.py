"""Random numbers as a pure function of their address: (seed, name of the stream, integers).

Nothing draws from torch's global generator, so results do not depend on what ran before, and a resumed run draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

DRAWS_PER_BLOCK = 128
DRAWS_PER_ADDRESS = 256
SEEDS_PER_ADDRESS = 64


def generator(seed: int, stream: str, *address: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one address, e.g. ``generator(seed, "train", step)``.

    The seed is mixed by numpy's `SeedSequence`, which makes neighbouring addresses independent. torch's generator for CPUs
    keeps 32 bits of it: among 100,000 addresses about one pair draws the same numbers.
    """
    return torch.Generator(device).manual_seed(_seeds(1, seed, stream, *address)[0])


def of_step(seed: int, stream: str, step: int, *address: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The same for steps that follow one another: their seeds are mixed 64 at a time, which takes less time."""
    block, place = divmod(step, SEEDS_PER_ADDRESS)
    return torch.Generator(device).manual_seed(_seeds_of_block(seed, stream, block, *address)[place])


@lru_cache(maxsize=64)
def _seeds_of_block(seed: int, stream: str, *address: int) -> list[int]:
    return _seeds(SEEDS_PER_ADDRESS, seed, stream, *address)


def _seeds(count: int, seed: int, stream: str, *address: int) -> list[int]:
    entropy = [seed, int.from_bytes(stream.encode(), "little"), len(address), *address]
    return [state % 2**63 for state in np.random.SeedSequence(entropy).generate_state(count, np.uint64).tolist()]


def per_example(seed: int, stream: str, ids: Tensor, block: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normal noise (*shape[:-1], N, shape[-1]), with one address per example and block.

    An example's noise depends on its id alone, not on the examples around it: batches can be cut anywhere.

    Args:
        seed: The experiment's seed.
        stream: What the noise is for.
        ids: Example ids, integers of shape (N,).
        block: Number of the block of draws.
        shape: Of one example's noise, e.g. (draws, K).
        like: A tensor whose dtype and device the noise takes.
    """
    kind: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    draws = [
        torch.randn(shape, generator=generator(seed, stream, example, block, device=like.device), **kind)
        for example in ids.tolist()
    ]
    return torch.stack(draws, dim=-2)


def draws(seed: int, stream: str, ids: Tensor, S: int, size: int, like: Tensor) -> Iterator[Tensor]:
    """S draws of standard normal noise for each example, in blocks (DRAWS_PER_BLOCK or fewer, N, size).

    An example's first draws are the same for any S. Arguments are those of `per_example`.
    """
    for block, start in enumerate(range(0, S, DRAWS_PER_ADDRESS)):
        noise = per_example(seed, stream, ids, block, (DRAWS_PER_ADDRESS, size), like)
        yield from noise[: S - start].split(DRAWS_PER_BLOCK)
