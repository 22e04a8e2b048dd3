"""Stage 1, prepare: read the raw table, find the kind of each column, split the rows, and write memory-mappable arrays.

Writes ``data/prepared/``: {train,valid,test}.npy of float32 (N, D), NaN where a value is missing, {train,valid,test}_index.npy
with the rows' numbers in the raw file, and schema.json.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.binarize import above, drawn, numbers_of, probabilities_of
from pipeline.columns import Raw, code, fit_transform, guess, raw_columns
from pipeline.errors import InputError
from pipeline.files import PREPARED
from pipeline.job import Job, running
from pipeline.kinds import KINDS, Kind, LeftOut
from pipeline.readers import check_files, format_of, read_table
from pipeline.schema import PROBABILITIES, Column, Schema
from pipeline.schema_table import show
from pipeline.sections import ColumnOptions, Data
from pipeline.splits import Split, split_columns, split_rows
from pipeline.stage import run
from pipeline.transforms import Array

LARGEST = 1e15  # prepared values beyond it overflow float32 when squared and summed over columns
MANY_TIES = 0.1  # share of the training rows with one value, from which a density of it needs a word


def main() -> None:
    """Run the stage."""
    with running("prepare") as job:
        _prepare(job)


def _prepare(job: Job) -> None:
    data = job.params.data
    check_files(data)
    table, given = read_table(data)
    raws = _raws(table, data)
    probabilities = probabilities_of(raws) if isinstance(data.binarize, str) else {}
    raws = drawn(probabilities, job.params.seed) if probabilities else raws
    kinds = _kinds(raws, data)
    left_out = split_columns(data) | {raw.name: kinds[raw.name][1] for raw in raws if kinds[raw.name][0] not in KINDS}
    kept = _kept(raws, left_out, data)
    rng = np.random.default_rng(job.params.seed)
    index = split_rows(table, given, data, rng)
    train = index["train"]
    coded = [code(raw, cast(Kind, kinds[raw.name][0]), _options(raw, data), train) for raw in kept]
    _check_coded(coded, train)
    columns, y = _transformed(coded, train, data, rng)
    schema = Schema(
        columns=columns,
        left_out=left_out,
        format=format_of(data),
        shape=_shape(data, columns),
        units=data.units,
        rows={split: len(rows) for split, rows in index.items()},
        notes=[*_notes(coded, train, data), *_repeated(coded, index)],
    )
    with job.outputs(PREPARED) as (_, folder):
        for split, rows in index.items():
            np.save(folder / f"{split}.npy", y[rows])
            np.save(folder / f"{split}_index.npy", rows)
        if data.binarize == "dynamic":
            ones = np.stack([probabilities[column.name][train] for column in columns], axis=1)
            np.save(folder / PROBABILITIES, ones.astype(np.float32))
        schema.save(folder)
    _report(data, schema, {name: why for name, (_, why) in kinds.items()})


def _raws(table: pd.DataFrame, data: Data) -> list[Raw]:
    """The columns that are not excluded."""
    raws = raw_columns(_selected(table, data), data.missing)
    return [above(raw, data.binarize) for raw in raws] if isinstance(data.binarize, float | int) else raws


def _selected(table: pd.DataFrame, data: Data) -> pd.DataFrame:
    for where, names in (("data.exclude", data.exclude), ("data.columns", data.columns)):
        if unknown := sorted(set(names) - set(table.columns)):
            raise InputError(f"{where}: no column {unknown[0]!r} in {data.path}; its columns are {_some(table.columns)}")
    kept = table.drop(columns=[*data.exclude, *(name for name in split_columns(data) if name not in data.exclude)])
    if not len(kept.columns):
        raise InputError(f"data.exclude: leaves no column of {data.path}; name fewer")
    return kept


def _kinds(raws: Sequence[Raw], data: Data) -> dict[str, tuple[Kind | LeftOut, str]]:
    """The kind of each column, and why: as declared, or as all of them are, or by its values.

    Dequantising makes all columns real numbers, and the pixels of an image are all of one kind.
    """
    found: dict[str, tuple[Kind | LeftOut, str]] = {}
    for raw in raws:
        if (declared := _declared(raw.name, data).declared) is not None:
            found[raw.name] = declared, "declared"
    free = [raw for raw in raws if raw.name not in found]
    if free and (data.dequantize is not None or data.shape is not None):
        kind = _common(free, data)
        return found | {raw.name: (kind, "as all columns") for raw in free}
    return found | {raw.name: guess(raw) for raw in free}


def _declared(name: str, data: Data) -> ColumnOptions:
    return data.columns.get(name) or ColumnOptions()


def _kept(raws: Sequence[Raw], left_out: dict[str, str], data: Data) -> list[Raw]:
    kept = [raw for raw in raws if raw.name not in left_out]
    if not kept:
        raise InputError(f"{data.path}: no column is left, as {_listed(left_out)}; declare the kinds of some in data.columns")
    return kept


def _common(raws: Sequence[Raw], data: Data) -> Kind:
    what = "data.shape" if data.dequantize is None else "data.dequantize"
    x = np.concatenate([numbers_of(raw, what) for raw in raws])
    x = x[~np.isnan(x)]
    if data.dequantize is not None or (x < 0).any() or (x != np.round(x)).any():
        return "continuous"
    return "binary" if (x <= 1).all() else "count"


def _options(raw: Raw, data: Data) -> ColumnOptions:
    options = _declared(raw.name, data)
    if options.declared in (None, "continuous") and options.dequantize is None:
        return options.model_copy(update={"dequantize": data.dequantize})
    return options


def _check_coded(coded: Sequence[tuple[Column, Array]], train: NDArray[np.int64]) -> None:
    """Refuse values off the grid that is to be dequantised, and columns whose density would be unbounded."""
    for column, x in coded:
        if column.step is not None:
            _check_grid(column.name, x, column.step)
    constant = [c.name for c, x in coded if c.is_density and c.step is None and _is_constant(x[train])]
    if constant:
        raise InputError(
            f"column {constant[0]!r} is constant in the training rows"
            + (f" (so are {len(constant) - 1} more)" if len(constant) > 1 else "")
            + f", so its density is unbounded; leave it out with data.exclude: {_some(constant)}, or, if values lie on a "
            "grid, set data.dequantize to its step"
        )


def _check_grid(name: str, x: Array, step: float) -> None:
    steps = x / step
    for row in np.flatnonzero(np.abs(steps - np.round(steps)) > 1e-6)[:1]:
        raise InputError(
            f"data.dequantize: {step:g} needs multiples of {step:g}; column {name!r}, row {row + 1} has {x[row]:g}; set the "
            "right step there or in data.columns, or null for continuous data"
        )


def _is_constant(x: Array) -> bool:
    """Whether the observed values agree to twelve digits."""
    observed = x[~np.isnan(x)]
    with np.errstate(over="ignore"):
        return bool(np.ptp(observed) <= 1e-12 * np.abs(observed).max())


def _transformed(
    coded: Sequence[tuple[Column, Array]], train: NDArray[np.int64], data: Data, rng: np.random.Generator
) -> tuple[list[Column], NDArray[np.float32]]:
    """The columns with their transformations, and the prepared values (N, D)."""
    steps = np.array([column.step or 0.0 for column, _ in coded])
    noise = iter((rng.random((len(coded[0][1]), np.count_nonzero(steps))) * steps[steps > 0]).T)
    columns = []
    y = np.empty((len(coded[0][1]), len(coded)), dtype=np.float32)
    for d, (column, values) in enumerate(coded):
        x = values + next(noise) if column.step is not None else values
        transform = _declared(column.name, data).transform or data.scale
        fitted, prepared = fit_transform(column, x, transform, train)
        _check_range(fitted, x, prepared)
        y[:, d] = prepared
        columns.append(fitted)
    return columns, y


def _check_range(column: Column, x: Array, y: Array) -> None:
    """Refuse what float32 cannot hold."""
    if not column.is_density:
        return
    low, high = np.nanmin(x), np.nanmax(x)
    with np.errstate(all="ignore"):
        extreme = not (np.nanmax(np.abs(y)) < LARGEST) or np.isnan(y).sum() > column.missing
        spread = np.nanstd(y)
        step = np.inf if column.step is None else column.step * spread / np.nanstd(x) / 8
        spacing = np.spacing(np.float32(np.nanmax(np.abs(y))))
    if extreme or not spread > 0:
        raise InputError(
            f"column {column.name!r}: its values, from {low:g} to {high:g}, are too extreme to compute with; mend them, or "
            "give them in other units"
        )
    if spacing * 256 > min(spread, step):
        raise InputError(
            f"column {column.name!r}: its values, about {np.nanmean(x):g}, are too large for float32 to tell them apart "
            f"(standard deviation {np.nanstd(x):g}); set data.scale: standardize, or subtract a constant"
        )


def _shape(data: Data, columns: Sequence[Column]) -> tuple[int, int] | None:
    if data.shape is None:
        return None
    height, width = data.shape
    if height * width != len(columns):
        raise InputError(
            f"data.shape: [{height}, {width}] needs {height * width} columns, but {data.path} has {len(columns)} after "
            "data.exclude; mend the shape, or set it to null for a table"
        )
    return height, width


def _notes(coded: Sequence[tuple[Column, Array]], train: NDArray[np.int64], data: Data) -> Iterator[str]:
    if isinstance(data.binarize, str):
        when = {"static": "once", "dynamic": "once for held-out rows, anew in each step of the training"}[data.binarize]
        yield f"zeros and ones were drawn with probability intensity / largest intensity, {when}"
    elif data.binarize is not None:
        yield f"values above {data.binarize:g} became 1, others 0"
    for step in sorted({column.step for column, _ in coded if column.step is not None}):
        names = [column.name for column, _ in coded if column.step == step]
        whose = "every value" if len(names) == len(coded) else f"the values of {_some(names)}"
        yield f"uniform noise on [0, {step:g}) was added to {whose}, so that its log-likelihood is a bound for discrete values"
    densities = [(column, x) for column, x in coded if column.is_density and column.step is None]
    if whole := [column.name for column, x in densities if np.array_equal(x, np.round(x), equal_nan=True)]:
        yield f"whole numbers under a density, which is not bounded: {_some(whole)}; set dequantize to 1 to compare models"
    for column, x in densities:
        values, counts = np.unique(x[train][~np.isnan(x[train])], return_counts=True)
        if counts.max() > MANY_TIES * counts.sum():
            yield (
                f"{counts.max()} of {counts.sum()} training rows have {values[counts.argmax()]:g} in column "
                f"{column.name!r}: a density there is bounded only by the floor of its variance"
            )
    for noisy, what in ((True, "nothing but the noise that was added now"), (False, "kept, as a probability is bounded")):
        constant = [c.name for c, x in coded if (c.step is not None) == noisy and _is_constant(x[train])]
        if constant:
            yield f"constant in the training rows, and {what}: {_some(constant)}"


def _repeated(coded: Sequence[tuple[Column, Array]], index: Split) -> Iterator[str]:
    """A held-out row that was trained on is no test of a model, unless rows have few values to take."""
    rows = pd.util.hash_pandas_object(pd.DataFrame({column.name: x for column, x in coded}), index=False).to_numpy()
    known = np.unique(rows[index["train"]])
    for split in ("valid", "test"):
        if count := int(np.isin(rows[index[split]], known).sum()):
            yield (
                f"{count} of {len(index[split])} {split} rows are also among the training rows, value for value: if they are "
                "copies, remove them; if rows have few values to take, it is to be expected"
            )


def _some(names: object) -> str:
    names = [str(name) for name in names]  # type: ignore[attr-defined]
    return f"[{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}]"


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:8])


def _report(data: Data, schema: Schema, why: dict[str, str]) -> None:
    rows = ", ".join(f"{count} {split}" for split, count in schema.rows.items())
    if schema.shape is None:
        show(schema, why)
    print(f"prepared {data.path}: {len(schema.columns)} columns; {rows} rows in {PREPARED}/")
    for note in schema.notes:
        print(f"  note: {note}")


if __name__ == "__main__":
    sys.exit(run("prepare", __doc__, main))
