"""From a table that was read to its arrays and its schema, by the passes over its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import add
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.columns.blocks import reading_of
from pipeline.reading.columns.coding import Plan
from pipeline.reading.columns.describe import check_trained, described, notes, repeated, split_notes
from pipeline.reading.columns.facts import Facts
from pipeline.reading.columns.guess import Guess
from pipeline.reading.columns.kept import Blocks
from pipeline.reading.columns.oddities import suspicions
from pipeline.reading.columns.passes import Table, fitted, measured, planned, transformed
from pipeline.reading.columns.program import Prepared, Program
from pipeline.reading.columns.ties import ties
from pipeline.reading.columns.writer import Writer, write_groups
from pipeline.reading.formats import format_of, unread
from pipeline.reading.splits import split_columns
from pipeline.tables.kinds import KINDS
from pipeline.tables.schema import Column, Schema

MOST_SUSPICIONS = 8


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
    columns, written = _written(program, columns, blocks, folder, data)
    schema = Schema(
        columns=columns,
        left_out=split_columns(data) | {name: why for name, (kind, why) in kinds.items() if kind not in KINDS},
        format=format_of(data),
        shape=shape,
        units=data.units,
        rows=program.splits.rows,
        reading=reading_of(data).model_copy(update={"largest": program.binarize.largest if program.binarize else None}),
        notes=[
            *unread(data),
            *_suspected(table.facts, kinds, data),
            *notes(program, measurements, ties(program, measurements, blocks), data),
            *written,
        ],
    )
    return schema, kinds


def _suspected(facts: Sequence[Facts], kinds: Mapping[str, Guess], data: Data) -> Iterator[str]:
    """Sentences on what may have been meant otherwise, so many as one reads."""
    found = list(suspicions(facts, kinds, data))
    yield from (f"column {column!r}: {what}" for column, what, _ in found[:MOST_SUSPICIONS])
    if len(found) > MOST_SUSPICIONS:
        yield f"and {len(found) - MOST_SUSPICIONS} more such columns, which `make data FILE={data.path}` shows"


def _written(
    program: Program, columns: list[Column], blocks: Blocks, folder: Path, data: Data
) -> tuple[list[Column], list[str]]:
    """Write the arrays; the columns with what came out of them, and what is to be said of the splits."""
    probabilities = program.binarize is not None and program.binarize.dynamic
    prepared: list[Prepared] = []
    with Writer(folder, blocks.folder, program.splits.rows, len(columns), probabilities=probabilities) as writer:
        for piece in transformed(program, columns, blocks):
            writer.write(piece)
            prepared = list(map(add, prepared, piece.columns)) if prepared else piece.columns
    made, by = list(map(described, program.plans, columns, prepared)), data.split
    said = list[str]()
    if by is not None:
        grouped = by.group or by.together or isinstance(by.hash, str)
        groups = write_groups(folder, writer.by, single=by.group is not None) if grouped else None
        said += split_notes(by, groups)
    return made, [*said, *repeated(writer.digests, data)]


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
