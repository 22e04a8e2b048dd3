"""How often a nominal 95 % interval of a mean over groups of examples holds the truth.

    python benchmarks/coverage.py [--repeats 2000] [--quick] [--json FILE]

Values are a group's own plus an example's, with an intraclass correlation of 0.1 or 0.5, normal or skewed like log-likelihoods
(minus a gamma variable of shape 2). Groups have ten rows each, or a log-normal number, or one. Two-stage means have a dearer
value on a fifth or a half of the groups, which differs by 0.5 + 0.3 of the group's effect + noise. Student's t with the
reported degrees of freedom, G - 1 in one stage, beside what the same data would claim if its rows were independent.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.report import Report, options
from vae.evidence import MeanWithError, two_stage

GROUPS = (10, 20, 30, 100)
GAIN = 0.5  # of the dearer value, on average


@dataclass(frozen=True)
class Population:
    """Groups that samples are drawn from.

    Attributes:
        groups: In a sample.
        correlation: Of two values of a group.
        rows: Of a group, in the median.
        spread: Standard deviation of the logarithm of sizes; 0: all are equal.
        skewed: Whether values are, or normal.
        share: Of the groups that have the dearer value; None: all, and there is no other.
    """

    groups: int
    correlation: float
    rows: int = 10
    spread: float = 0.0
    skewed: bool = False
    share: float | None = None

    def sample(self, rng: np.random.Generator) -> tuple[MeanWithError, MeanWithError]:
        """The estimate with its error over groups, and over rows."""
        sizes = np.maximum(1, np.round(self.rows * np.exp(self.spread * rng.normal(size=self.groups)))).astype(int)
        member = np.repeat(np.arange(self.groups), sizes)
        effects = self._effects(self.groups, rng)
        x = math.sqrt(self.correlation) * effects[member] + math.sqrt(1 - self.correlation) * self._effects(len(member), rng)
        groups, values = torch.from_numpy(member), torch.from_numpy(x)
        if self.share is None:
            return MeanWithError.of(values, groups), MeanWithError.of(values)
        drawn = rng.permutation(self.groups)[: max(2, math.ceil(self.share * self.groups))]
        subset = torch.isin(groups, torch.from_numpy(drawn)).nonzero().squeeze(1)
        difference = GAIN + 0.3 * effects[member[subset]] + 0.3 * rng.normal(size=len(subset))
        better = values[subset] + torch.from_numpy(difference)
        return two_stage(values, better, subset, groups), two_stage(values, better, subset)

    @property
    def truth(self) -> float:
        """The mean."""
        return 0.0 if self.share is None else GAIN

    def _effects(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Of mean 0 and variance 1."""
        return (2 - rng.gamma(2, size=count)) / math.sqrt(2) if self.skewed else rng.normal(size=count)

    def __str__(self) -> str:
        sizes = (
            f"log-normal {self.spread:g}" if self.spread else "one row each" if self.rows == 1 else f"{self.rows} rows each"
        )
        values = "skewed" if self.skewed else "normal"
        stages = "" if self.share is None else f", {self.share:.0%} twice"
        return f"{sizes}, {values}, {self.correlation:g}{stages}"


@dataclass(frozen=True)
class Coverage:
    """Shares of samples whose interval holds the truth, over groups and over rows, and the mean effective number of groups."""

    by_groups: float
    by_rows: float
    effective: float


def coverage(population: Population, repeats: int, seed: int = 0) -> Coverage:
    """By simulation; its standard error is about 0.22 / sqrt(repeats) near 0.95."""
    rng = np.random.default_rng(seed)
    found = [population.sample(rng) for _ in range(repeats)]
    by_groups, by_rows = (np.mean([_holds(pair[k], population.truth) for pair in found]) for k in range(2))
    return Coverage(float(by_groups), float(by_rows), float(np.mean([pair[0].effective_groups or 0 for pair in found])))


def _holds(estimate: MeanWithError, truth: float) -> bool:
    low, high = estimate.interval()
    return low <= truth <= high


def populations(*, quick: bool) -> Iterator[Population]:
    """One for each row of the table, its number of groups aside."""
    for share in (None, 0.2, 0.5):
        for skewed in (False, True):
            yield Population(0, 0.5, rows=1, skewed=skewed, share=share)
            for correlation in (0.5,) if quick else (0.1, 0.5):
                for spread in (0.0, 1.0) if quick else (0.0, 0.5, 1.0):
                    yield Population(0, correlation, spread=spread, skewed=skewed, share=share)


def main() -> None:
    """Print the table."""
    arguments = _arguments()
    report, rows = Report(Console(width=127)), []
    repeats = 300 if arguments.quick else arguments.repeats
    for population in populations(quick=arguments.quick):
        found = {G: coverage(replace(population, groups=G), repeats) for G in GROUPS}
        cells = [f"{held.by_groups:.3f} ({held.effective:.0f})" for held in found.values()]
        rows.append([str(population), *cells, f"{found[GROUPS[-1]].by_rows:.3f}"])
        for G, held in found.items():
            report.add(re.sub(r"\W+", "_", f"{population} {G} groups"), held.by_groups)
    columns = ["sizes, values, correlation", *(f"{G} groups" for G in GROUPS), f"{GROUPS[-1]}, as if independent"]
    error = math.sqrt(0.95 * 0.05 / repeats)
    report.table(f"95 % intervals that hold the truth, ± {error:.4f} (and effective groups)", columns, rows)
    if arguments.json:
        report.write(arguments.json)


def _arguments() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
