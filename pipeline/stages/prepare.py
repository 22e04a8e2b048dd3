"""Read the raw table, find the kind of each column, split the rows, and write memory-mappable arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import add
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.base.files import PREPARED
from pipeline.params.data import Data, PrepareParams
from pipeline.reading.columns.cluster import ADDRESS, surveyed_by
from pipeline.reading.columns.coding import Plan
from pipeline.reading.columns.describe import check_trained, described, notes, repeated
from pipeline.reading.columns.guess import Guess
from pipeline.reading.columns.kept import Blocks, KeptBlocks, kept_blocks
from pipeline.reading.columns.passes import Table, fitted, measured, planned, surveyed, transformed
from pipeline.reading.columns.program import Prepared, Program
from pipeline.reading.columns.ties import ties
from pipeline.reading.columns.writer import Writer
from pipeline.reading.formats import check_files, format_of, read_blocks
from pipeline.reading.schema_table import show
from pipeline.reading.splits import split_columns
from pipeline.stages.job import running
from pipeline.tables.kinds import KINDS
from pipeline.tables.schema import Column, Reading, Schema


def main() -> None:
    """Read the table, write its arrays and its schema, and say what was found in it."""
    with running("prepare", PrepareParams) as job:
        data = job.params.data
        check_files(data)
        with kept_blocks(PREPARED) as blocks, job.outputs(PREPARED) as (_, folder), _read(data, blocks) as table:
            schema, kinds = prepare(table, data, job.params.seed, folder)
            schema.save(folder)
        if schema.shape is None:
            show(schema, {name: why for name, (_, why) in kinds.items()})
        rows = ", ".join(f"{count} {split}" for split, count in schema.rows.items())
        print(f"prepared {data.path}: {len(schema.columns)} columns; {rows} rows in {PREPARED}/")
        print("".join(f"  note: {note}\n" for note in schema.notes), end="")


@contextmanager
def _read(data: Data, blocks: KeptBlocks) -> Iterator[Table]:
    """The table that ``data`` names: kept here, or with the workers of a Dask cluster if the environment has its address."""
    if ADDRESS not in os.environ:
        yield surveyed(read_blocks(data), data, blocks)
        return
    from dask.distributed import Client

    with Client(os.environ[ADDRESS]) as client:
        yield surveyed_by(client, data, blocks.folder)


def prepare(table: Table, data: Data, seed: int, folder: Path) -> tuple[Schema, dict[str, Guess]]:
    """Write the arrays of a table to a folder.

    Args:
        table: That was read.
        data: The params.
        seed: Of the split and of all noise.
        folder: For the arrays; it exists.

    Returns:
        The schema, and each column's kind with its reason.

    Raises:
        InputError: If the data is not as it should be.
    """
    blocks = table.blocks
    program, kinds = planned(table, data, seed)
    shape = _shape(data, program.plans)
    measurements = measured(program, blocks)
    columns = fitted(program, measurements, blocks)
    check_trained(program, measurements)
    grouped = data.split is not None and data.split.group is not None
    columns, repetitions = _written(program, columns, blocks, folder, grouped=grouped)
    schema = Schema(
        columns=columns,
        left_out=split_columns(data) | {name: why for name, (kind, why) in kinds.items() if kind not in KINDS},
        format=format_of(data),
        shape=shape,
        units=data.units,
        rows=program.splits.rows,
        reading=Reading(
            missing=data.missing, binarize=data.binarize, largest=program.binarize.largest if program.binarize else None
        ),
        notes=[*notes(program, measurements, ties(program, measurements, blocks), data), *repetitions],
    )
    return schema, kinds


def _written(
    program: Program, columns: list[Column], blocks: Blocks, folder: Path, *, grouped: bool
) -> tuple[list[Column], list[str]]:
    """Write the arrays; the columns with what came out of them, and how many rows are in two splits."""
    probabilities = program.binarize is not None and program.binarize.dynamic
    prepared: list[Prepared] = []
    rows, width = program.splits.rows, len(columns)
    with Writer(folder, blocks.folder, rows, width, probabilities=probabilities, grouped=grouped) as writer:
        for piece in transformed(program, columns, blocks):
            writer.write(piece)
            prepared = list(map(add, prepared, piece.columns)) if prepared else piece.columns
    made = list(map(described, program.plans, columns, prepared))
    return made, list(repeated(writer.digests))


def _shape(data: Data, plans: Sequence[Plan]) -> tuple[int, int, int] | None:
    if data.shape is None:
        return None
    height, width, channels = (*data.shape, 1)[:3]
    if height * width * channels != len(plans):
        raise InputError(
            f"data.shape: {data.shape} needs {height * width * channels} columns, but {data.path} has {len(plans)} after "
            "data.exclude; mend the shape, or set it to null for a table"
        )
    return height, width, channels
