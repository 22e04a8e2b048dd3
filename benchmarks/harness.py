"""What the benchmarks share: where to run, fair timing on a noisy machine, and the workload.

The workload has the sizes of Burda et al. (2016): 784 binary pixels, decoder 50-200-200-784, float32.
"""

from __future__ import annotations

import gzip
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vae import VAE

PIXELS, LATENT = 784, 50
HIDDEN = {"hidden": [200, 200], "activation": "tanh"}
DENSITY = 0.13  # of ones in binarised MNIST
IDX_HEADER = 16  # bytes

Case = Callable[[], object]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Place:
    """A device, with a number of threads where it is the CPU."""

    name: str
    device: str
    threads: int

    def enter(self) -> None:
        """Use this number of threads from here on."""
        torch.set_num_threads(self.threads)

    def seconds(self, case: Case) -> float:
        """How long one call takes, its work on the device included."""
        self._synchronize()
        start = time.perf_counter()
        case()
        self._synchronize()
        return time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def cpu(threads: int) -> Place:
    """The CPU with so many threads."""
    return Place(f"threads{threads}", "cpu", threads)


def places(threads: Sequence[int]) -> list[Place]:
    """The CPU with each number of threads, and CUDA where there is a device."""
    gpu = [Place("cuda", "cuda", max(threads))] if torch.cuda.is_available() else []
    return [*map(cpu, threads), *gpu]


def medians(place: Place, cases: Mapping[Key, Case], repeats: int) -> dict[Key, float]:
    """Median seconds of each case, after a call that is not counted.

    A round calls every case once, so that a slow minute of the machine slows all of them.
    """
    place.enter()
    for case in cases.values():
        case()
    rounds = [{name: place.seconds(case) for name, case in cases.items()} for _ in range(repeats)]
    return {name: statistics.median(times[name] for times in rounds) for name in cases}


def model(data_dim: int = PIXELS, width: int = 200, **settings: Any) -> VAE:
    """The VAE that is measured, D-200-200-50 and back by default, with its initial weights."""
    network = {**HIDDEN, "hidden": [width, width]}
    return VAE(network, network, data_dim=data_dim, latent_dim=LATENT, likelihood="bernoulli", **settings).eval()


def fitted(rows: Tensor, epochs: int) -> VAE:
    """The same after some epochs, so that importance weights and network outputs vary as they do in use."""
    return model().fit(rows, max_epochs=epochs, batch_size=100, accelerator="cpu", progress=False).eval()


def random_rows(N: int, D: int = PIXELS) -> Tensor:
    """Binary rows (N, D) about as dense as binarised MNIST."""
    return (torch.rand(N, D, generator=torch.Generator().manual_seed(0)) < DENSITY).float()


def mnist_rows(folder: Path) -> Tensor:
    """The 10,000 test rows, binarised, (N, D)."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=IDX_HEADER)
    return torch.from_numpy((pixels > 127).astype(np.float32)).reshape(-1, PIXELS)
