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
from pipeline.files import PREPARED, complete
from pipeline.params import Data, load_params
from pipeline.readers import numeric, read_table
from pipeline.schema import SPLITS, Array, Schema, ValueType
from pipeline.stage import run

LEAST_ROWS = 2


def main() -> None:
    """Run the stage."""
    params = load_params()
    data = params.data
    table = numeric(_selected(read_table(Path(data.path)), data))
    rng = np.random.default_rng(params.seed)
    index = _split(len(table), data, rng)
    raw, notes = _treated(table, data, rng, index["train"])
    shift, scale = _affine(raw[index["train"]], data)
    schema = Schema(
        columns=list(table.columns),
        format=Path(data.path).suffix.lower(),
        shape=_shape(data, table),
        units=data.units,
        value_type=_value_type(raw, data),
        step=data.dequantize,
        shift=shift.tolist(),
        scale=scale.tolist(),
        rows={split: len(rows) for split, rows in index.items()},
        notes=notes,
    )
    with complete(PREPARED) as folder:
        for split, rows in index.items():
            np.save(folder / f"{split}.npy", ((raw[rows] - shift) / scale).astype(np.float32))
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


def _treated(table: pd.DataFrame, data: Data, rng: np.random.Generator, train: NDArray[np.int64]) -> tuple[Array, list[str]]:
    """Raw values after binarisation or dequantisation, and notes on what was done."""
    raw = table.to_numpy(dtype=np.float64)
    constant = [str(name) for name, spread in zip(table.columns, np.ptp(raw[train], axis=0), strict=True) if spread == 0]
    if data.binarize is not None:
        raw = (raw > data.binarize).astype(np.float64)
        return raw, [f"values above {data.binarize:g} became 1, others 0"]
    if data.dequantize is not None:
        _check_grid(table, data.dequantize)
        notes = [f"uniform noise on [0, {data.dequantize:g}) was added to every value"]
        if constant:
            notes.append(f"constant in the training rows, and nothing but that noise now: {_some(constant)}")
        return raw + data.dequantize * rng.random(raw.shape), notes
    if constant and not _is_binary(raw):
        raise InputError(
            f"column {constant[0]!r} is constant in the training rows"
            + (f" (so are {len(constant) - 1} more)" if len(constant) > 1 else "")
            + f", so its density is unbounded; leave it out with data.exclude: {_some(constant)}, or, "
            "if values lie on a grid, set data.dequantize to its step"
        )
    return raw, _grid_notes(raw, data)


def _grid_notes(raw: Array, data: Data) -> list[str]:
    if (raw != np.round(raw)).any() or _value_type(raw, data) == "binary":
        return []
    return ["all values are integers, and a density of them is not bounded: set data.dequantize to 1 to compare models"]


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
