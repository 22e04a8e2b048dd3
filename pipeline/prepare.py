"""Stage 1, prepare: read the raw table, check it, split it, transform it, and write memory-mappable arrays.

Writes ``data/prepared/``: {train,valid,test}.npy of float32 (N, D), {train,valid,test}_index.npy with the rows' numbers in the
raw file, and schema.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.files import PREPARED
from pipeline.job import Job, running
from pipeline.params import Data
from pipeline.readers import numeric, read_table
from pipeline.schema import SPLITS, Array, Schema, ValueType
from pipeline.stage import run

LEAST_ROWS = 2
LARGEST = 1e15  # prepared values beyond it overflow float32 when squared and summed over columns


def main() -> None:
    """Run the stage."""
    with running("prepare") as job:
        _prepare(job)


def _prepare(job: Job) -> None:
    data = job.params.data
    table = numeric(_selected(read_table(Path(data.path)), data))
    rng = np.random.default_rng(job.params.seed)
    index = _split(len(table), data, rng)
    raw, notes = _treated(table, data, rng)
    value_type = _value_type(raw, data)
    notes += _constant_columns(table, raw, index["train"], value_type, data)
    shift, scale = _affine(raw[index["train"]], data)
    y = _scaled(raw, shift, scale, table, data)
    schema = Schema(
        columns=list(table.columns),
        format=Path(data.path).suffix.lower(),
        shape=_shape(data, table),
        units=data.units,
        value_type=value_type,
        step=data.dequantize,
        shift=shift.tolist(),
        scale=scale.tolist(),
        rows={split: len(rows) for split, rows in index.items()},
        notes=notes,
    )
    with job.outputs(PREPARED) as (_, folder):
        for split, rows in index.items():
            np.save(folder / f"{split}.npy", y[rows])
            np.save(folder / f"{split}_index.npy", rows)
        schema.save(folder)
    _report(data, schema)


def _selected(table: pd.DataFrame, data: Data) -> pd.DataFrame:
    unknown = sorted(set(data.exclude) - set(table.columns))
    if unknown:
        raise InputError(f"data.exclude: no column {unknown[0]!r} in {data.path}; its columns are {_some(table.columns)}")
    kept = table.drop(columns=data.exclude)
    if not len(kept.columns):
        raise InputError(f"data.exclude: leaves no column of {data.path}; name fewer")
    return kept


def _split(rows: int, data: Data, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each split, in the order of the file: disjoint, together all rows, at random by the seed."""
    order = rng.permutation(rows)
    valid, test = (round(rows * fraction) for fraction in (data.fractions.valid, data.fractions.test))
    parts = np.split(order, [rows - valid - test, rows - test])
    index = {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}
    for split, part in index.items():
        if len(part) < LEAST_ROWS:
            raise InputError(
                f"data.fractions.{split}: gives {len(part)} of the {rows} rows of {data.path}, and {LEAST_ROWS} are needed; "
                "use more rows or a larger fraction"
            )
    return index


def _treated(table: pd.DataFrame, data: Data, rng: np.random.Generator) -> tuple[Array, list[str]]:
    """Raw values after binarisation or dequantisation, and notes on what was done."""
    raw = table.to_numpy(dtype=np.float64)
    if data.binarize is not None:
        return (raw > data.binarize).astype(np.float64), [f"values above {data.binarize:g} became 1, others 0"]
    if data.dequantize is not None:
        _check_grid(table, data.dequantize)
        noisy = raw + data.dequantize * rng.random(raw.shape)
        return noisy, [f"uniform noise on [0, {data.dequantize:g}) was added to every value"]
    if (raw == np.round(raw)).all() and _value_type(raw, data) != "binary":
        return raw, [
            "all values are integers, and a density of them is not bounded: set data.dequantize to 1 to compare "
            "models (for Bernoulli, data.binarize)"
        ]
    return raw, []


def _constant_columns(
    table: pd.DataFrame, raw: Array, train: NDArray[np.int64], value_type: ValueType, data: Data
) -> list[str]:
    """Refuse columns whose density would be unbounded; note the others that say nothing."""
    if value_type == "continuous":
        constant = _constant(raw[train], table)
        if constant:
            raise InputError(
                f"column {constant[0]!r} is constant in the training rows"
                + (f" (so are {len(constant) - 1} more)" if len(constant) > 1 else "")
                + f", so its density is unbounded; leave it out with data.exclude: {_some(constant)}, or, "
                "if values lie on a grid, set data.dequantize to its step"
            )
        return []
    before = raw[train] if value_type == "binary" else table.to_numpy(dtype=np.float64)[train]
    constant = _constant(before, table)
    what = "kept, as a probability is bounded" if value_type == "binary" else "nothing but the noise that was added now"
    return [f"constant in the training rows, and {what}: {_some(constant)}"] if constant else []


def _constant(values: Array, table: pd.DataFrame) -> list[str]:
    """Columns whose values agree to twelve digits."""
    with np.errstate(over="ignore"):
        same = np.ptp(values, axis=0) <= 1e-12 * np.abs(values).max(axis=0)
    return [str(name) for name, constant in zip(table.columns, same, strict=True) if constant]


def _scaled(raw: Array, shift: Array, scale: Array, table: pd.DataFrame, data: Data) -> NDArray[np.float32]:
    """(raw - shift) / scale, where float32 can hold it."""
    with np.errstate(all="ignore"):
        y = ((raw - shift) / scale).astype(np.float32)
        spread = raw.std(axis=0) / scale
        step = np.inf if data.dequantize is None else data.dequantize / scale / 8
        spacing = np.spacing(np.abs(y).max(axis=0))
    for column, name in enumerate(table.columns):
        if not np.isfinite(scale[column]) or not scale[column] > 0 or not (np.abs(y[:, column]) < LARGEST).all():
            raise InputError(
                f"column {name!r}: its values, from {raw[:, column].min():g} to {raw[:, column].max():g}, are too extreme to "
                "compute with; mend them, or give them in other units"
            )
        if data.binarize is None and spread[column] and spacing[column] * 256 > np.minimum(spread, step)[column]:
            raise InputError(
                f"column {name!r}: its values, about {raw[:, column].mean():g}, are too large for float32 to tell them apart "
                f"(standard deviation {raw[:, column].std():g}); set data.scale: standardize, or subtract a constant"
            )
    return y


def _check_grid(table: pd.DataFrame, step: float) -> None:
    steps = table.to_numpy(dtype=np.float64) / step
    off = np.abs(steps - np.round(steps)) > 1e-6
    if off.any():
        row, column = (int(i) for i in np.argwhere(off)[0])
        raise InputError(
            f"data.dequantize: {step:g} needs multiples of {step:g}; column {table.columns[column]!r}, row {row + 1} has "
            f"{float(steps[row, column]) * step:g}; set the right step, or null for continuous data"
        )


def _affine(train: Array, data: Data) -> tuple[Array, Array]:
    if data.scale == "none":
        return np.zeros(train.shape[1]), np.ones(train.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):  # `_scaled` refuses what comes of it
        return train.mean(axis=0), train.std(axis=0)


def _value_type(raw: Array, data: Data) -> ValueType:
    if data.dequantize is not None:
        return "grid"
    return "binary" if _is_binary(raw) and data.scale == "none" else "continuous"


def _is_binary(raw: Array) -> bool:
    return bool(np.isin(raw, (0, 1)).all())


def _shape(data: Data, table: pd.DataFrame) -> tuple[int, int] | None:
    if data.shape is None:
        return None
    height, width = data.shape
    if height * width != len(table.columns):
        raise InputError(
            f"data.shape: [{height}, {width}] needs {height * width} columns, but {data.path} has {len(table.columns)} after "
            "data.exclude; mend the shape, or set it to null for a table"
        )
    return height, width


def _some(names: object) -> str:
    names = [str(name) for name in names]  # type: ignore[attr-defined]
    return f"[{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}]"


def _report(data: Data, schema: Schema) -> None:
    rows = ", ".join(f"{count} {split}" for split, count in schema.rows.items())
    print(f"prepared {data.path}: {len(schema.columns)} columns; {rows} rows in {PREPARED}/")
    for note in schema.notes:
        print(f"  note: {note}")


if __name__ == "__main__":
    sys.exit(run("prepare", __doc__, main))
