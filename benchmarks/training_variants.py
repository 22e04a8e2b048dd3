"""The speed of training in bfloat16, and with networks compiled by torch, beside the default."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.epochs import medians, seconds
from benchmarks.harness import model, random_rows
from benchmarks.report import Report
from vae import VAE

BATCHES = (20, 100, 512)


def measure(report: Report, *, quick: bool) -> Iterator[str]:
    """A row for each batch size."""
    torch.set_num_threads(2)
    y = random_rows(3_000 if quick else 20_000)
    lines = []
    for size in BATCHES:
        cases = {
            "default": lambda size=size: seconds(model(784), y, batch_size=size),
            "bfloat16": lambda size=size: seconds(model(784), y, batch_size=size, precision="bf16-mixed"),
            "compiled": lambda size=size: seconds(_compiled(), y, batch_size=size),
        }
        found = medians(cases, 1 if quick else 3)
        ratios = {name: found["default"] / found[name] for name in ("bfloat16", "compiled")}
        for name, ratio in ratios.items():
            report.add(f"batch{size}_{name}_speedup", ratio)
        lines.append([f"batches of {size}", *(f"{ratio:.2f}" for ratio in ratios.values())])
    report.table("Speed, times that of the default (float32, not compiled)", ["", "bfloat16", "torch.compile"], lines)
    yield from ()


def _compiled() -> VAE:
    vae = model(784)
    vae.inference.network.compile()
    vae.generative.network.compile()
    return vae
