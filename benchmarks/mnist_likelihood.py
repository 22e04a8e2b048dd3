"""Held-out log-likelihood of binarised MNIST by every estimator, with errors: the table of docs/likelihood.md.

    python benchmarks/mnist_likelihood.py PATH-TO-IDX [--quick] [--json FILE] [--threads 2]

PATH-TO-IDX is the folder with the four original files (train-images-idx3-ubyte.gz, ...). The one-layer network of Burda et al.
(2016), 784-200-200-50 and back with tanh, is trained for 25 passes over the images, on five binarisations of them: a pixel is
1 with the probability of its grey value. The test images are binarised once. About 15 minutes on two cores; ``--quick``
gives a rough answer within a minute.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

from benchmarks.harness import HIDDEN, IDX_HEADER, LATENT, PIXELS
from benchmarks.report import Report, options
from vae import ELBO, VAE
from vae.distributions.noise import generator
from vae.evidence import (
    Annealing,
    MeanWithError,
    annealed_importance_sampling,
    bidirectional_bounds,
    evidence_lower_bound,
    importance_sampling,
    prior_sampling,
    tune_step_sizes,
    two_stage,
)

VALIDATION = 400
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sizes:
    """How much to compute.

    Attributes:
        copies: Binarisations of the training images; ``epochs`` passes over all of them.
        test: Test images; ``annealed`` of them are annealed, and ``simulated`` rows bounded from both sides.
        ladder: Numbers of importance samples, the last one reported.
        prior: Prior samples.
        temperatures: Of annealing, with 16 chains and 5 leapfrog steps.
    """

    copies: int = 5
    epochs: int = 5
    test: int = 10_000
    ladder: tuple[int, ...] = (1, 10, 100, 1000, 5000)
    prior: int = 1_000_000
    annealed: int = 200
    temperatures: int = 1000
    chains: int = 16
    simulated: int = 100


QUICK = Sizes(copies=1, epochs=2, test=500, ladder=(1, 10, 100), prior=10_000, annealed=20, temperatures=100, simulated=10)


def main() -> None:
    """Train, then estimate."""
    options = parse()
    torch.set_num_threads(options.threads)
    sizes, table = QUICK if options.quick else Sizes(), Table()
    train, valid, test = rows(options.path, sizes)
    vae = table.timed("training", lambda: trained(train, valid, sizes))
    bound = table.timed("elbo", lambda: evidence_lower_bound(vae, test, 100))
    table.row("ELBO", MeanWithError.of(bound.elbo))
    *smaller, S = sizes.ladder
    importance = table.timed("importance", lambda: importance_sampling(vae, test, S, ladder=smaller))
    for s, values in importance.ladder.items():
        table.row(
            f"importance sampling, S = {s:,}", MeanWithError.of(values), importance.monte_carlo_error if s == S else None
        )
    annealing = table.timed("tuning", lambda: tune_step_sizes(vae, valid, annealing=Annealing(sizes.temperatures)))
    subset = torch.randperm(len(test), generator=generator(0, "annealed rows"))[: sizes.annealed]
    annealed = table.timed(
        "annealing",
        lambda: annealed_importance_sampling(vae, test[subset], sizes.chains, annealing=annealing, ids=subset),
    )
    both = two_stage(importance.log_likelihood, annealed.log_likelihood, subset)
    table.row(f"annealed from q, {sizes.annealed} images, and importance sampling", both)
    gain = MeanWithError.of(annealed.log_likelihood - importance.log_likelihood[subset])
    table.row(f"annealed minus importance sampling, {sizes.annealed} images", gain, annealed.monte_carlo_error)
    prior = table.timed("prior", lambda: prior_sampling(vae, test, sizes.prior))
    table.row(f"prior sampling, S = {sizes.prior:,}", MeanWithError.of(prior.log_likelihood), prior.monte_carlo_error)
    below = MeanWithError.of(prior.log_likelihood - importance.log_likelihood)
    table.row("prior minus importance sampling", below)
    bounds = table.timed("bounds", lambda: bidirectional_bounds(vae, sizes.simulated, sizes.chains, annealing=annealing))
    table.row(f"upper minus lower bound, {sizes.simulated} simulated images", bounds.gap)
    table.print(
        f"Pareto k above {importance.pareto_threshold:.1f}: {importance.unreliable.double().mean():.0%} of the images; "
        f"effective prior samples: median {prior.effective_sample_size.median():.1f}; proposals accepted while annealing: "
        f"{annealed.acceptance.mean(dim=1).min():.2f} to {annealed.acceptance.mean(dim=1).max():.2f}; "
        f"chains with fewer than {sizes.chains // 4} effective: "
        f"{(annealed.effective_sample_size < sizes.chains / 4).double().mean():.1%} of the images"
    )
    if options.json:
        table.report.write(options.json)


class Table:
    """The rows of the table, and how long each step took."""

    def __init__(self) -> None:
        self.report, self._rows, self._seconds = Report(), list[tuple[str, str, str]](), 0.0

    def timed(self, name: str, step: Callable[[], Result]) -> Result:
        """The result of a step, whose seconds are kept and said."""
        start = time.perf_counter()
        result = step()
        self.report.add(f"{name}_seconds", time.perf_counter() - start)
        self.report.console.print(f"{name}: {time.perf_counter() - start:.0f} s")
        return result

    def row(self, label: str, entry: MeanWithError, monte_carlo_error: float | None = None) -> None:
        """A line of the table."""
        key = "".join(c if c.isalnum() else "_" for c in label.replace(",", "")).lower()
        self.report.add(key, entry.mean)
        self.report.add(f"{key}_se", entry.standard_error)
        noise = "" if monte_carlo_error is None else f"{monte_carlo_error:.3f}"
        self._rows.append((label, f"{entry.mean:.3f} ± {entry.standard_error:.3f}", noise))

    def print(self, note: str) -> None:
        """The whole table."""
        columns = ("binarised MNIST test images, nats per image", "mean ± standard error", "Monte Carlo error")
        self.report.table("Held-out log-likelihood", columns, self._rows)
        self.report.say(note)


def trained(train: Tensor, valid: Tensor, sizes: Sizes) -> VAE:
    """The network of the paper, by the ELBO with one sample and Adam at 1e-3."""
    vae = VAE(HIDDEN, HIDDEN, data_dim=PIXELS, latent_dim=LATENT, likelihood="bernoulli", objective=ELBO(1, "closed_form"))
    return vae.fit(
        train, validation=valid, max_epochs=sizes.epochs, batch_size=100, learning_rate=1e-3, accelerator="cpu"
    ).eval()


def rows(folder: Path, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """Binary training, validation and test rows (N, 784)."""
    grey, test = pixels(folder / "train-images-idx3-ubyte.gz"), pixels(folder / "t10k-images-idx3-ubyte.gz")[: sizes.test]
    train = torch.cat([binarised(grey[:-VALIDATION], copy) for copy in range(sizes.copies)])
    return train, binarised(grey[-VALIDATION:], 1000), binarised(test, 1001)


def pixels(path: Path) -> Tensor:
    """Grey values in [0, 1], (N, 784)."""
    with gzip.open(path) as file:
        values = np.frombuffer(file.read(), np.uint8, offset=IDX_HEADER)
    return torch.from_numpy(values.astype(np.float32) / 255).reshape(-1, PIXELS)


def binarised(grey: Tensor, number: int) -> Tensor:
    """Each pixel 1 with the probability of its grey value."""
    return torch.bernoulli(grey, generator=generator(0, "binarisation", number))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("path", type=folder_of_mnist, metavar="PATH-TO-IDX", help="folder with the four original files")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args()


def folder_of_mnist(path: str) -> Path:
    """A folder that has the images."""
    if not (Path(path) / "train-images-idx3-ubyte.gz").is_file():
        raise argparse.ArgumentTypeError(f"{path} has no train-images-idx3-ubyte.gz; download the four MNIST files there")
    return Path(path)


if __name__ == "__main__":
    main()
