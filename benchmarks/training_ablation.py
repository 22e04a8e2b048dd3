"""What each fast path of the training gains: steps with all of them and without one, in short turns in one process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial

from benchmarks.harness import cpu, medians, random_rows
from benchmarks.report import Report
from benchmarks.training_steps import TURN, our_step, repeat
from pipeline.base.compute import use_threads

PATHS = ("networks fused", "terms fused", "Adam weight by weight", "weights by columns")
SETTINGS: tuple[tuple[int, int | None], ...] = ((20, None), (100, None), (512, None), (100, 5))
RUNS = 3


def measure(report: Report, *, quick: bool) -> Iterator[str]:
    """A row for each setting and path: how many times as fast as without it, in each of some runs."""
    use_threads(2)
    lines = []
    for batch_size, samples in SETTINGS:
        y, count = random_rows(batch_size), max(1, TURN // (batch_size * (samples or 1) * 10))
        gains: dict[str, list[float]] = {path: [] for path in PATHS}
        for _ in range(1 if quick else RUNS):
            steps = {path: partial(repeat, our_step(y, samples, path), count) for path in ("", *PATHS)}
            seconds = medians(cpu(2), steps, 5 if quick else 60)
            for path in PATHS:
                gains[path].append(seconds[path] / seconds[""])
        of, suffix = (f", IWAE, K = {samples}", f"_iwae{samples}") if samples else ("", "")
        for path, runs in gains.items():
            report.add(f"batch{batch_size}{suffix}_{path.replace(' ', '_')}_gain", statistics.median(runs))
            lines.append([f"batches of {batch_size}{of}: {path}", *(f"{gain:.2f}" for gain in runs)])
    report.table("Speed of a step, times that without a fast path", ["", *map(str, range(1, len(lines[0])))], lines)
    yield "below 1.03 at every size a fast path is not worth its lines"
