"""Prepare a large table: the memory and the time it takes, and whether the bytes are those that come out with all in memory.

    python benchmarks/prepare.py                 # 20 million rows x 50 columns: about 12 GB on disk while it runs
    python benchmarks/prepare.py --rows 1000000  # a twentieth, as in CI
    python benchmarks/prepare.py --quick

The exit status is 1 if more than 1 GiB of memory was used or the bytes differ. The table has columns of real numbers (some
with gaps, one of them heavy-tailed and logarithmised), of counts, of zeros and ones, of ordered levels and of texts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import peak
from benchmarks.report import Report, options

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
GROUP = 2**20  # rows of a Parquet row group, pyarrow's default
COLUMNS = 50
IN_MEMORY_ROWS = 2_000_000  # at most, for the comparison
CHILD = "from benchmarks.prepare import child; child()"


def group(first: int, rows: int) -> pd.DataFrame:
    """Rows ``first`` to ``first + rows`` of the table."""
    rng = np.random.default_rng(first)
    z = rng.normal(size=(rows, 4)).astype(np.float64)
    kinds = {
        "real": lambda: z @ rng.normal(size=4) + rng.normal(size=rows),
        "gap": lambda: np.where(rng.random(rows) < 0.1, np.nan, z[:, 0] + rng.normal(size=rows)),
        "count": lambda: rng.poisson(np.exp(0.5 * z[:, 1])),
        "flag": lambda: (z[:, 2] > rng.normal(size=rows)).astype(np.int8),
        "level": lambda: np.digitize(z[:, 3], [-1, 0, 1]) + 1,
        "text": lambda: np.array(["red", "green", "blue", "grey"], dtype=object)[rng.integers(0, 4, rows)],
    }
    shares = ["real"] * 30 + ["gap"] * 8 + ["count"] * 5 + ["flag"] * 3 + ["level"] * 2 + ["text"] * 2
    columns = {f"{kind}_{number}": kinds[kind]() for number, kind in enumerate(shares[:COLUMNS])}
    columns["real_0"] = np.exp(columns["real_0"])
    return pd.DataFrame(columns)


def generate(path: Path, rows: int) -> None:
    """Write the table."""
    with pq.ParquetWriter(path, pa.Schema.from_pandas(group(0, 8), preserve_index=False)) as writer:
        for first in range(0, rows, GROUP):
            table = pa.Table.from_pandas(group(first, min(GROUP, rows - first)), schema=writer.schema, preserve_index=False)
            writer.write_table(table, row_group_size=GROUP)


def child() -> None:
    """Prepare a file in this process; print what it took as JSON."""
    from pipeline.params.data import Data
    from pipeline.reading.columns.kept import kept_blocks
    from pipeline.reading.columns.passes import surveyed
    from pipeline.reading.formats import read_blocks
    from pipeline.reading.preparation import prepare

    path, folder, limit = sys.argv[1:]
    data = Data.model_validate(
        {
            "path": path,
            "fractions": {"train": 0.7, "valid": 0.15, "test": 0.15},
            "columns": {"real_0": {"transform": "log"}, "count_40": {"dequantize": 1}},
        }
    )
    start = time.perf_counter()
    Path(folder).mkdir(parents=True)
    with kept_blocks(Path(folder), **({"limit": int(limit)} if limit else {})) as blocks:
        schema, _ = prepare(surveyed(read_blocks(data), data, blocks), data, 0, Path(folder))
    schema.save(Path(folder))
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak()}))


def measured(path: Path, folder: Path, limit: str = "") -> dict[str, float]:
    """Seconds and peak memory of a process that prepares a file."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-c", CHILD, str(path), str(folder), limit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def by_hand(path: Path, folder: Path) -> float:
    """Seconds of pandas and NumPy with all rows in memory: read, split, standardise and save the columns of numbers."""
    start = time.perf_counter()
    folder.mkdir(exist_ok=True)
    table = pd.read_parquet(path)
    order = np.random.default_rng(0).permutation(len(table))
    x = table.select_dtypes("number").to_numpy(dtype=np.float64)
    ends = [round(0.7 * len(x)), round(0.85 * len(x))]
    train = np.sort(order[: ends[0]])
    mean, std = np.nanmean(x[train], axis=0), np.nanstd(x[train], axis=0)
    for name, rows in zip(("train", "valid", "test"), np.split(order, ends), strict=True):
        np.save(folder / f"{name}.npy", ((x[np.sort(rows)] - mean) / std).astype(np.float32))
    return time.perf_counter() - start


def same(one: Path, other: Path) -> bool:
    """Whether two folders have the same files."""
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return all(not subprocess.run(["cmp", "-s", one / name, other / name]).returncode for name in names)


def main() -> None:
    """Measure."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", type=Path, default=ROOT / "data", help="on whose disk to work")
    arguments = parser.parse_args()
    rows = 200_000 if arguments.quick else arguments.rows
    work = arguments.folder / "benchmark.partial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        report, passed = compare(work, rows)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if arguments.json:
        report.write(arguments.json)
    sys.exit(not passed)


def compare(work: Path, rows: int) -> tuple[Report, bool]:
    """The table of all rows, of a quarter of them, and of so many that they fit into memory."""
    report, times, table = Report(), {}, []
    for count in (rows // 4, rows):
        generate(work / "table.parquet", count)
        times[count] = found = measured(work / "table.parquet", work / "blocks")
        table.append((f"{count:,} in blocks", f"{found['seconds']:.1f}", f"{found['peak'] / 2**20:,.0f}"))
    few = min(rows, IN_MEMORY_ROWS)
    if few < rows:
        generate(work / "table.parquet", few)
        times[few] = measured(work / "table.parquet", work / "blocks")
        table.append((f"{few:,} in blocks", f"{times[few]['seconds']:.1f}", f"{times[few]['peak'] / 2**20:,.0f}"))
    whole = measured(work / "table.parquet", work / "whole", str(2**40))
    table.append((f"{few:,} in memory", f"{whole['seconds']:.1f}", f"{whole['peak'] / 2**20:,.0f}"))
    hand = by_hand(work / "table.parquet", work / "hand")
    table.append((f"{few:,} by hand: pandas, numbers only", f"{hand:.1f}", ""))
    report.table(f"prepare, {COLUMNS} columns of Parquet", ["rows", "seconds", "peak MiB"], table)
    identical, fits = same(work / "blocks", work / "whole"), times[rows]["peak"] <= GIB
    report.say(
        f"the same bytes in blocks and in memory: {'yes' if identical else 'NO'}; within 1 GiB: {'yes' if fits else 'NO'}"
    )
    numbers: dict[str, Any] = {
        "rows": rows,
        "seconds": times[rows]["seconds"],
        "peak_mib": times[rows]["peak"] / 2**20,
        "same_bytes": float(identical),
        "linear_ratio": 4 * times[rows // 4]["seconds"] / times[rows]["seconds"],
        "by_hand_ratio": hand / times[few]["seconds"],
    }
    for name, value in numbers.items():
        report.add(name, float(value))
    report.say(f"a quarter of the rows takes {1 / 4 * numbers['linear_ratio']:.2f} of the time")
    return report, identical and fits


if __name__ == "__main__":
    main()
