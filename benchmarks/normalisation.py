"""Whether the estimated probabilities of all rows of zeros and ones add up to 1.

    python benchmarks/normalisation.py [--model models] [--samples 1000] [--quick] [--json FILE]

A model of D binary columns gives each of the 2^D rows a probability. Importance sampling's estimates of them are unbiased on
the natural scale, so their sum is 1 within its Monte Carlo error, whatever the model has learned: a wrong density of a latent,
a dropped constant or a weight that is off shows at once. For presets/nltcs.yaml (D = 16), about a minute on two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import torch
from torch import Tensor

from benchmarks.report import Report, options
from vae import VAE
from vae.evidence import importance_sampling

MOST_COLUMNS = 20


def main() -> int:
    """Print the sum; 1 if it is beyond five standard errors from 1 (once in 1.7 million times)."""
    arguments = _arguments()
    vae = VAE.load(arguments.model)
    if vae.card.data_dim > MOST_COLUMNS or vae.card.likelihood["name"] != "bernoulli":
        print(f"needs a bernoulli model of at most {MOST_COLUMNS} columns; {arguments.model} is another", file=sys.stderr)
        return 1
    rows = every_row(vae.card.data_dim)
    estimate = importance_sampling(vae, rows, 100 if arguments.quick else arguments.samples, seed=1)
    total, error = estimate.log_likelihood.exp().sum().item(), _standard_error(estimate.leave_one_out.exp())
    report = Report()
    table = [[f"{len(rows):,}", f"{estimate.samples:,}", f"{total:.5f}", f"{error:.5f}", f"{(total - 1) / error:+.1f}"]]
    report.table("Sum of the estimates of p(y)", ["rows", "samples of each", "sum", "standard error", "off by errors"], table)
    report.add("sum_of_probabilities", total)
    report.add("standard_error", error)
    if arguments.json:
        report.write(arguments.json)
    return int(abs(total - 1) > 5 * error)


def every_row(columns: int) -> Tensor:
    """All rows of zeros and ones, (2^D, D)."""
    return (torch.arange(2**columns)[:, None] >> torch.arange(columns) & 1).float()


def _standard_error(without: Tensor) -> float:
    """Of the sum of independent estimates, from each without one of B blocks of its draws, (B, N): a jackknife."""
    blocks = len(without)
    return float(((without - without.mean(dim=0)) ** 2).sum() * (blocks - 1) / blocks) ** 0.5


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--model", type=Path, default=Path("models"))
    parser.add_argument("--samples", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
