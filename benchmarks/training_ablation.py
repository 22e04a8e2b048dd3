"""What each fast path of the training gains: the stage `train` with all of them, and without one, in turns with the loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.report import Report
from benchmarks.training_stage import Case, seconds_of_epochs

PATHS = {  # what a program does without each
    "networks fused": """
from vae.training.fast.vector import WeightVector
bind = WeightVector.bind
WeightVector.bind = lambda self, *, fuse: bind(self, fuse=False)
""",
    "terms fused": """
from vae.model.terms import Terms
from vae.training import fit
fit.terms_of_steps = lambda objective, fused: Terms
""",
    "Adam in one call": """
from vae.training.fast.vector import VectorAdam
VectorAdam.update = VectorAdam.step
""",
    "weights by columns": """
from torch import nn
from vae.model import networks
networks.linear = lambda before, after, *, bias=True: nn.Linear(before, after, bias=bias)
""",
}
RUNS = 3


def measure(report: Report, *, quick: bool) -> Iterator[str]:
    """A row for each batch size and path: how many times as fast as without it, in each of some runs."""
    lines = []
    for size in (20, 100, 512):
        case = Case(3_000 if quick else 18_000, size, None, 3)
        gains: dict[str, list[float]] = {name: [] for name in PATHS}
        for _ in range(1 if quick else RUNS):
            whole = _times_loop(case, "")
            for name, changed in PATHS.items():
                gains[name].append(whole / _times_loop(case, changed))
        for name, runs in gains.items():
            report.add(f"batch{size}_{name.replace(' ', '_')}_gain", float(np.median(runs)))
            lines.append([f"batches of {size}, {name}", *(f"{gain:.2f}" for gain in runs)])
    report.table("Speed, times that without a fast path", ["", *map(str, range(1, len(lines[0])))], lines)
    yield "below 1.03 at every size a fast path is not worth its lines"


def _times_loop(case: Case, changed: str) -> float:
    """Our speed over that of the loop by hand, which takes turns with it: the median over epochs."""
    epochs = seconds_of_epochs(case, with_pythae=False, changed=changed)
    return float(np.median([epoch["loop"] / epoch["ours"] for epoch in epochs]))
