"""How the time of an epoch grows with the number of rows, columns, hidden units, samples, and rows in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.epochs import medians, seconds
from benchmarks.harness import model, random_rows
from benchmarks.report import Report
from vae.objectives import IWAE

BASE: dict[str, int] = {"N": 4_000, "D": 784, "width": 200, "samples": 5, "batch": 100}
FACTORS = (1, 2, 4)


def measure(report: Report, *, quick: bool) -> Iterator[str]:
    """A row for each of them; time over that of the base."""
    torch.set_num_threads(2)
    base = BASE | ({"N": 800} if quick else {})
    lines = []
    for name in base:
        cases: dict[int, Callable[[], list[float]]] = {
            factor: partial(_epochs, **{**base, name: factor * base[name]}) for factor in FACTORS
        }
        found = medians(cases, 1 if quick else 3)
        growth = [found[factor] / found[1] for factor in FACTORS[1:]]
        for factor, times in zip(FACTORS[1:], growth, strict=True):
            report.add(f"cost_{name}_times{factor}", times)
        lines.append([f"{name} (base {base[name]:,})", *(f"{times:.2f}" for times in growth)])
    report.table("Time of an epoch of IWAE over the base", ["", "x 2", "x 4"], lines)
    yield "A larger batch has fewer steps; D is in the first and the last layer, the width squared in two others."


def _epochs(N: int, D: int, width: int, samples: int, batch: int) -> list[float]:
    settings: dict[str, Any] = {"objective": IWAE(samples)}
    return seconds(model(D, width, **settings), random_rows(N, D), batch_size=batch)
