"""Where the blocks of a table are kept between the passes over them: in memory while they are few, then in files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from pipeline.reading.columns.blocks import Block

IN_MEMORY = 2**27  # bytes of blocks that are kept in memory


T = TypeVar("T")


class Blocks(Protocol):
    """Blocks in their order, wherever they lie.

    Attributes:
        folder: Where there is room for what lies beside them.
    """

    folder: Path

    def __len__(self) -> int:
        """The number of blocks."""

    def map(self, function: Callable[[Block], T]) -> Iterator[T]:
        """What a function makes of each block, in their order."""


class KeptBlocks:
    """Blocks in their order, kept on this machine.

    Attributes:
        folder: Where there is room for what lies beside them.

    Args:
        folder: Where those go that do not stay in memory.
        limit: How many bytes stay.
    """

    def __init__(self, folder: Path, limit: int = IN_MEMORY) -> None:
        self.folder, self._left = folder, limit
        self._blocks: list[Block | tuple[int, int]] = []

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Block:
        held = self._blocks[number]
        if isinstance(held, Block):
            return held
        with pa.memory_map(str(self._path(held[0]))) as file:
            return Block(*held, pa.ipc.open_file(file).get_batch(0))

    def map(self, function: Callable[[Block], T]) -> Iterator[T]:
        """What a function makes of each block, in their order."""
        return map(function, self)

    def append(self, block: Block) -> None:
        """Keep a block."""
        self._left -= block.data.nbytes
        if self._left >= 0:
            self._blocks.append(block)
            return
        with pa.OSFile(str(self._path(block.number)), "wb") as file, pa.ipc.new_file(file, block.data.schema) as writer:
            writer.write_batch(block.data)
        self._blocks.append((block.number, block.first))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.arrow"


@contextmanager
def kept_blocks(beside: Path, limit: int = IN_MEMORY) -> Iterator[KeptBlocks]:
    """No blocks yet; their files lie on the disk of ``beside`` and are removed at the end."""
    folder = beside.with_name(f"{beside.name}.blocks.partial")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield KeptBlocks(folder, limit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
