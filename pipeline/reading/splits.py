"""Which rows train, select and test: as given, or at random by the seed, whole groups together or strata alike.

Nowhere is there a list of all rows: how many rows of a block go where is drawn first, block by block, without replacement
(the counts are multivariate hypergeometric), and which rows they are is drawn anew whenever a block is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.columns.blocks import Block
from pipeline.tables.schema import SPLITS, number_text

Labels = NDArray[np.int8]  # positions in SPLITS; -1 where none is settled
Digests = NDArray[np.uint64]

LEAST_ROWS = 2  # standard errors need two
NAMES = {name: name for name in SPLITS} | {"training": "train"} | dict.fromkeys(("validation", "val", "dev"), "valid")


def split_columns(data: Data) -> dict[str, str]:
    """The columns that are for splitting only, and why."""
    by = data.split
    if by is None:
        return {}
    return {name: f"says the {what}" for name, what in ((by.column, "split"), (by.group, "group")) if name is not None}


def settled(frame: pd.DataFrame, of_files: Labels, data: Data, first: int) -> tuple[Labels, Digests]:
    """For the rows of a block, the split that their file or a column says, and a digest of their group or stratum.

    Raises:
        InputError: If a column to split by is not there or has gaps or unknown values.
    """
    by = data.split
    if by is not None and by.column is not None:
        of_files = _of_column(frame, by.column, first)
    name = None if by is None else by.group or by.stratify
    if by is None or name is None:
        return of_files, np.zeros(len(frame), dtype=np.uint64)
    values = _column(frame, name, "data.split.group" if by.group else "data.split.stratify", first)
    texts = values.map(number_text) if pd.api.types.is_numeric_dtype(values) else values.astype(str).str.strip()
    return of_files, pd.util.hash_array(texts.to_numpy(dtype=object))


def _of_column(frame: pd.DataFrame, name: str, first: int) -> Labels:
    values = _column(frame, name, "data.split.column", first).astype(str).str.strip()
    found = values.str.lower().map(NAMES)
    for row in np.flatnonzero(found.isna())[:1]:
        raise InputError(
            f"data.split.column: column {name!r}, row {first + row + 1}: expected train, valid or test, got "
            f"{values.iloc[row]!r}; mend the cell, or split at random"
        )
    return found.map(SPLITS.index).to_numpy(dtype=np.int8)


def _column(frame: pd.DataFrame, name: str, where: str, first: int) -> pd.Series:
    if name not in frame.columns:
        raise InputError(f"{where}: no column {name!r}; the columns are [{', '.join(map(str, frame.columns[:8]))}, ...]")
    values = frame[name]
    for row in np.flatnonzero(values.isna() | (values.astype(str).str.strip() == ""))[:1]:
        raise InputError(
            f"{where}: column {name!r} has no value in row {first + row + 1}; fill it, or split by another column"
        )
    return values


@dataclass(frozen=True)
class Tally:
    """What a block has to say to the split of the table.

    Attributes:
        given: Rows of each split that are settled.
        digests: Of the groups or strata of rows that are not settled, or settled to be training rows; in order.
        counts: Rows of each.
    """

    given: tuple[int, ...]
    digests: Digests
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, block: Block) -> Tally:
        """Of a block."""
        given = block.given
        digests, counts = np.unique(block.by[given <= 0], return_counts=True)
        return cls(tuple(int((given == part).sum()) for part in range(3)), digests, counts)


Draw = Callable[[Block], Labels]


@dataclass(frozen=True)
class Splits:
    """The split of each row: what is settled, and for the others a draw.

    Attributes:
        rows: Of each split.
        draw: Of the open rows of a block, in their order; None where all rows are settled.
    """

    rows: dict[str, int]
    draw: Draw | None

    def labels(self, block: Block) -> Labels:
        """For each row of a block the position of its split in SPLITS."""
        labels = block.given.copy()
        if self.draw is not None:
            labels[labels <= 0] = self.draw(block)
        return labels


def split_rows(tallies: Sequence[Tally], data: Data, seed: int, rng: np.random.Generator) -> Splits:
    """Draw the split of a table.

    Args:
        tallies: Of its blocks.
        data: What to split by: ``files``, ``split`` and ``fractions``.
        seed: Of the rows that are drawn.
        rng: Of those of the first block, and of the groups.

    Raises:
        InputError: If a split gets too few rows.
    """
    given = [sum(tally.given[part] for tally in tallies) for part in range(3)]
    open_ones = {split: getattr(data.fractions, split) for part, split in enumerate(SPLITS) if not given[part] or not part}
    draw, rows = None, dict(zip(SPLITS, given, strict=True))
    if len(open_ones) > 1 and any(len(tally.digests) for tally in tallies):
        total = sum(open_ones.values())
        shares = np.array([open_ones.get(split, 0.0) / total for split in SPLITS])
        draw, drawn = _draw(tallies, data, shares, seed, rng)
        rows |= {split: drawn[part] for part, split in enumerate(SPLITS) if split in open_ones}
    for split, count in rows.items():
        if count < LEAST_ROWS:
            where = "data.fractions" if split in open_ones and len(open_ones) > 1 else "the split given"
            raise InputError(
                f"{where}.{split}: gives {count} of the {sum(rows.values())} rows of {data.path}, and {LEAST_ROWS} are "
                "needed; use more rows or a larger fraction"
            )
    return Splits(rows, draw)


def _draw(
    tallies: Sequence[Tally], data: Data, shares: NDArray[np.float64], seed: int, rng: np.random.Generator
) -> tuple[Draw, Sequence[int]]:
    """The draw, and how many rows it gives each split."""
    digests = np.unique(np.concatenate([tally.digests for tally in tallies]))
    counts = np.zeros((len(tallies), len(digests)), dtype=np.int64)
    for row, tally in zip(counts, tallies, strict=True):
        row[np.searchsorted(digests, tally.digests)] = tally.counts
    if data.split is not None and data.split.group is not None:
        groups = _by_groups(digests, counts.sum(axis=0), shares, rng)
        return groups, [int(counts.sum(axis=0)[groups.parts == part].sum()) for part in range(3)]
    quotas = _dealt(counts.sum(axis=0), shares, rng) if len(digests) > 1 else _rounded(int(counts.sum()), shares)
    return _by_strata(digests, counts, quotas, seed, rng), quotas.sum(axis=0).tolist()


@dataclass(frozen=True)
class Groups:
    """Whole groups in a split each."""

    digests: Digests
    parts: Labels

    def __call__(self, block: Block) -> Labels:
        """The labels of the open rows of a block."""
        return self.parts[np.searchsorted(self.digests, block.by[block.given <= 0])]


def _by_groups(digests: Digests, counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator) -> Groups:
    """Groups in random order, each where the middle of its rows falls, so that no split is off by more than half a group."""
    order = rng.permutation(len(digests))
    middles = np.empty(len(digests))
    middles[order] = np.cumsum(counts[order]) - counts[order] / 2
    part = np.searchsorted(np.cumsum(shares)[:-1] * counts.sum(), middles, side="right")
    return Groups(digests, part.astype(np.int8))


def _rounded(rows: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of each split, (1, 3)."""
    valid, test = (round(rows * share) for share in shares[1:])
    return np.array([[rows - valid - test, valid, test]])


def _dealt(counts: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of each stratum and split, (strata, 3): strata laid end to end, every stretch with each split's share."""
    quotas, left, total = np.zeros((len(counts), 3), dtype=np.int64), counts.copy(), 1.0
    for part in (2, 1):
        ends = np.floor(np.append(0, np.cumsum(left)) * (shares[part] / total) + rng.random())
        quotas[:, part] = np.diff(ends)
        left, total = left - quotas[:, part], total - shares[part]
    quotas[:, 0] = left
    return quotas


@dataclass(frozen=True)
class Strata:
    """Rows at random, so many of each stratum in each split; without strata there is one of all rows.

    Attributes:
        digests: Of the strata, in order.
        quotas: For each block the rows of each stratum and split, (strata, 3).
        seed: Of which rows they are.
        first: The order of the open rows of the first block.
    """

    digests: Digests
    quotas: Sequence[NDArray[np.int64]]
    seed: int
    first: NDArray[np.int64]

    def __call__(self, block: Block) -> Labels:
        """The labels of the open rows of a block."""
        codes = np.searchsorted(self.digests, block.by[block.given <= 0])
        order = self.first if not block.number else np.random.default_rng([self.seed, 2, block.number]).permutation(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]
        labels = np.empty(len(codes), dtype=np.int8)
        labels[order] = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(self.digests)), self.quotas[block.number].ravel())
        return labels


def _by_strata(
    digests: Digests, counts: NDArray[np.int64], quotas: NDArray[np.int64], seed: int, rng: np.random.Generator
) -> Strata:
    """Deal the quotas of each stratum out to the blocks, whose rows of it are in the rows of ``counts``."""
    order, dealer, left, blocks = rng.permutation(counts[0].sum()), np.random.default_rng([seed, 3]), quotas.copy(), []
    for of_block in counts:
        drawn = np.array([_without_replacement(of, rows, dealer) for of, rows in zip(left, of_block, strict=True)])
        left -= drawn
        blocks.append(drawn)
    return Strata(digests, blocks, seed, order)


def _without_replacement(left: NDArray[np.int64], rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many of ``rows`` rows come from each of the three, of which so many are left."""
    return left.copy() if rows == left.sum() else rng.multivariate_hypergeometric(left, rows, method="marginals")
