"""From a table that was read to its arrays and its schema, by the passes over its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.columns.coding import Plan
from pipeline.reading.columns.describe import check_trained, described, notes, repeated
from pipeline.reading.columns.guess import Guess
from pipeline.reading.columns.kept import Blocks
from pipeline.reading.columns.passes import Table, fitted, measured, planned, transformed
from pipeline.reading.columns.program import Prepared, Program
from pipeline.reading.columns.ties import ties
from pipeline.reading.columns.writer import Writer
from pipeline.reading.formats import format_of, unread
from pipeline.reading.splits import split_columns
from pipeline.tables.kinds import KINDS
from pipeline.tables.schema import Column, Reading, Schema


def prepare(table: Table, data: Data, seed: int, folder: Path) -> tuple[Schema, dict[str, Guess]]:
    """Write the arrays of a table to a folder.

    Args:
        table: What was read.
        data: The params.
        seed: What the split and all noise are drawn by.
        folder: Where the arrays go; it exists.

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
        notes=[*unread(data), *notes(program, measurements, ties(program, measurements, blocks), data), *repetitions],
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
    """Height, width and channels, where a row is an image."""
    if data.shape is None:
        return None
    height, width, channels = (*data.shape, 1)[:3]
    if height * width * channels != len(plans):
        raise InputError(
            f"data.shape: {data.shape} needs {height * width * channels} columns, but {data.path} has {len(plans)} after "
            "data.exclude; mend the shape, or set it to null for a table"
        )
    return height, width, channels
