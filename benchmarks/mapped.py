"""Training rows that stay on disk, beside the same rows held in memory: rows per second, and the memory of the process.

    python benchmarks/mapped.py
    python benchmarks/mapped.py --quick

The file is in the page cache after the first epoch, as one that is read in every epoch is where there is memory for it: what
is measured is what reading in shuffled pools costs beside training.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.memory import peak
from benchmarks.report import Report, options

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, BATCH = 50, 512
CHILD = "from benchmarks.mapped import child; child()"


def child() -> None:
    """Train in this process; print rows per second of each epoch but the first, and the growth of the memory, as JSON."""
    import pytorch_lightning as pl
    import torch

    from vae import VAE

    path, memory_gib, epochs, hidden = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

    class Clock(pl.Callback):
        starts: list[float] = []  # noqa: RUF012
        ends: list[float] = []  # noqa: RUF012

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.starts.append(time.perf_counter())

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.ends.append(time.perf_counter())

    torch.set_num_threads(2)
    layers = {"hidden": [hidden], "activation": "silu"}
    vae = VAE(layers, layers, data_dim=COLUMNS, latent_dim=8, likelihood="gaussian_per_dimension")
    y, clock, before = np.load(path, mmap_mode="r"), Clock(), peak()
    how: dict[str, Any] = {"accelerator": "cpu", "threads": 2, "progress": False, "memory_gib": memory_gib}
    vae.fit(y, max_epochs=epochs, batch_size=BATCH, callbacks=[clock], **how)
    rates = [len(y) / (end - start) for start, end in zip(clock.starts, clock.ends, strict=True)]
    print(json.dumps({"rate": statistics.median(rates[1:]), "memory": peak() - before}))


def measured(path: Path, memory_gib: float, epochs: int, hidden: int) -> dict[str, float]:
    """What a process says."""
    command = [sys.executable, "-c", CHILD, str(path), str(memory_gib), str(epochs), str(hidden)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, disk and memory in turns."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows, repeats = (200_000, 1) if arguments.quick else (arguments.rows, arguments.repeats)
    report, table = Report(), []
    with tempfile.TemporaryDirectory(dir=ROOT / "data", suffix=".partial") as folder:
        path = Path(folder) / "rows.npy"
        np.save(path, np.random.default_rng(0).normal(size=(rows, COLUMNS)).astype(np.float32))
        for hidden in (16, 128):
            found = {gib: [] for gib in (1000.0, 1e-9)}  # type: dict[float, list[dict[str, float]]]
            for _ in range(repeats):
                for gib, values in found.items():
                    values.append(measured(path, gib, 3, hidden))
            memory, disk = (
                {name: statistics.median(one[name] for one in values) for name in ("rate", "memory")}
                for values in found.values()
            )
            report.add(f"hidden{hidden}_disk_over_memory_ratio", disk["rate"] / memory["rate"])
            report.add(f"hidden{hidden}_memory_mib", memory["memory"] / 2**20)
            report.add(f"hidden{hidden}_disk_mib", disk["memory"] / 2**20)
            table.append(
                (
                    f"{hidden} hidden units",
                    f"{memory['rate']:,.0f}",
                    f"{disk['rate']:,.0f}",
                    f"{disk['rate'] / memory['rate']:.2f}",
                    f"{memory['memory'] / 2**20:,.0f}",
                    f"{disk['memory'] / 2**20:,.0f}",
                )
            )
    columns = ["rows/s", "in memory", "from disk", "ratio", "MiB, in memory", "MiB, from disk"]
    report.table(f"training on {rows:,} rows x {COLUMNS} columns, batches of {BATCH}", columns, table)
    if arguments.json:
        report.write(arguments.json)


if __name__ == "__main__":
    main()
