"""The column program on a Dask cluster, where one machine is not enough: the same functions of the same blocks.

Dask, because its scheduler takes plain functions of pandas blocks as they are, spills to the workers' disks, and runs from a
laptop to a cluster with nothing but ``pip``; Ray Data would want its own data blocks and a larger runtime.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from pipeline.base.bar import progress_bar
from pipeline.cluster.connection import Cluster
from pipeline.params.data import Data
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.facts import Facts
from pipeline.reading.columns.passes import Table, block_of
from pipeline.reading.formats import raw_files, reader_of
from pipeline.reading.formats.parquet import Parquet, read_group, row_groups
from pipeline.reading.formats.reader import batch_rows
from pipeline.reading.splits import Tally
from pipeline.tables.schema import SPLITS

AHEAD = 2  # blocks that each thread has waiting

T = TypeVar("T")


class Group(NamedTuple):
    """A row group of a Parquet file.

    Attributes:
        path: The path of the file, as all workers see it.
        number: The number of the group in the file.
        rows: How many rows it has.
        split: The split that these are for; -1 where that is not settled.
    """

    path: Path
    number: int
    rows: int
    split: int


class ClusterBlocks:
    """Blocks that lie with the workers of a cluster.

    Attributes:
        folder: Where there is room for what lies beside them, on this machine.
    """

    def __init__(self, cluster: Cluster, blocks: Sequence[Any], folder: Path) -> None:
        self._cluster, self._blocks, self.folder = cluster, blocks, folder

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self._blocks)

    def map(self, function: Callable[[Block], T]) -> Iterator[T]:
        """What a function makes of each block, in their order, computed where the blocks lie."""
        waiting: deque[Any] = deque()
        of_block = self._cluster.remote(partial(_of_block, function))
        for block in self._blocks:
            waiting.append(self._cluster.client.submit(of_block, block, pure=False))
            if len(waiting) > AHEAD * self._cluster.threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def is_parquet(data: Data) -> bool:
    """Whether the files are Parquet, which is what workers can read in parts."""
    return all(reader_of(file.path) is Parquet for file in raw_files(data))


def surveyed_by(cluster: Cluster, data: Data, folder: Path) -> Table:
    """Read a table by the workers of a cluster, who keep its blocks.

    Args:
        cluster: Its workers have this project and see the files at the same paths.
        data: The params, of Parquet files.
        folder: Where there is room for what lies beside the blocks.

    Raises:
        InputError: As `surveyed` does.
    """
    cluster.threads()  # which says so if there are none
    blocks = cluster.client.compute(_blocks(cluster, data), sync=False)

    def surveys() -> Iterator[tuple[list[Facts], Tally]]:
        with progress_bar(transient=True) as bar:
            task = bar.add_task("reading blocks", total=len(blocks), note="")
            for block in blocks:
                yield cluster.client.submit(itemgetter(1, 2), block).result()
                bar.advance(task)

    return Table.of(ClusterBlocks(cluster, blocks, folder), surveys(), data)


def _blocks(cluster: Cluster, data: Data) -> list[Any]:
    """Delayed blocks, of a Dask DataFrame whose partitions are the row groups of the files."""
    import dask.dataframe as dd
    from dask.delayed import delayed

    groups: list[Group] = []
    for file in raw_files(data):
        split = -1 if file.split is None else SPLITS.index(file.split)
        groups += [Group(*group, split) for group in row_groups(file.path.resolve())]
    paths, numbers = [group.path for group in groups], [group.number for group in groups]
    frame = dd.from_map(cluster.remote(read_group), paths, numbers, meta=read_group(paths[0], numbers[0]).iloc[:0])
    parts = frame.to_delayed(optimize_graph=False)
    ends = np.cumsum([group.rows for group in groups])
    size, make = batch_rows(len(frame.columns)), delayed(cluster.remote(partial(block_of_parts, data)))
    blocks = []
    for number, first in enumerate(range(0, int(ends[-1]), size)):
        last = min(first + size, int(ends[-1]))
        chosen = range(int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(ends, last)) + 1)
        cuts = [(max(0, first - int(ends[k] - groups[k].rows)), last - int(ends[k] - groups[k].rows)) for k in chosen]
        blocks.append(make([parts[k] for k in chosen], cuts, [groups[k].split for k in chosen], number, first))
    return blocks


def block_of_parts(
    data: Data, parts: Sequence[pd.DataFrame], cuts: Sequence[tuple[int, int]], splits: Sequence[int], number: int, first: int
) -> tuple[Block, list[Facts], Tally]:
    """The block that begins at row ``first``, of these rows of row groups, and what a survey says of it."""
    pieces = [part.iloc[begin:end] for part, (begin, end) in zip(parts, cuts, strict=True)]
    given = np.repeat(np.array(splits, dtype=np.int8), [len(piece) for piece in pieces])
    block, facts = block_of(pd.concat(pieces, ignore_index=True), given, data, number, first)
    return block, facts, Tally.of(block)


def _of_block(function: Callable[[Block], T], held: tuple[Block, list[Facts], Tally]) -> T:
    return function(held[0])
