"""Zeros and ones that are drawn in proportion to intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.facts import Facts
from pipeline.tables.statistics import Array


@dataclass(frozen=True)
class Binarize:
    """Draws each value as a one with probability value / largest value of all columns.

    Attributes:
        seed: What the draws follow from, apart from those of the split.
        largest: The largest of all values.
        rows: The number of rows of the table.
        dynamic: Whether the probabilities of the training rows are kept.
        names: The names of the columns.
    """

    seed: int
    largest: float
    rows: int
    dynamic: bool
    names: Sequence[str]

    @classmethod
    def of(cls, facts: Sequence[Facts], how: str, seed: int) -> Binarize:
        """The draws for a table."""
        largest = max(column.numbers_for("data.binarize").range.greatest for column in facts)
        return cls(seed, largest if largest > 0 else 1.0, facts[0].rows, how == "dynamic", [column.name for column in facts])

    def drawn(self, block: Block, column: int, x: Array) -> Array:
        """Zeros and ones for the intensities x of a column of a block.

        Raises:
            InputError: If one is missing or below 0.
        """
        for row in np.flatnonzero(~(x >= 0))[:1]:
            raise InputError(
                f"data.binarize: static and dynamic need intensities from 0 on; column {self.names[column]!r}, row "
                f"{block.first + row + 1} has {x[row]:g}; mend it, or set a threshold"
            )
        rng = np.random.default_rng([self.seed, 1])
        rng.bit_generator.advance(column * self.rows + block.first)  # type: ignore[attr-defined]
        return (rng.random(len(x)) < x / self.largest).astype(np.float64)

    def probabilities(self, block: Block, columns: Sequence[int]) -> NDArray[np.float32] | None:
        """The probabilities of ones (n, D), if they are kept."""
        if not self.dynamic:
            return None
        return np.stack([block.numbers(column) / self.largest for column in columns], axis=1).astype(np.float32)
