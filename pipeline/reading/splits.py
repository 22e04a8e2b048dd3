"""Which rows train, select and test: as given, by a hash, or at random by the seed, whole groups together or strata alike.

Nowhere is there a list of all rows, but of groups, and of different rows where copies stay together: how many rows of a block
go where is drawn first, block by block, without replacement (the counts are multivariate hypergeometric), and which rows they
are is drawn anew whenever a block is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.params.data import Data
from pipeline.reading.columns.blocks import Block, reading_of
from pipeline.reading.columns.facts import NAMED_ROWS
from pipeline.reading.digests import Digests, cell_digests, content_digests, id_digests, uniform
from pipeline.tables.schema import SPLITS

Labels = NDArray[np.int8]  # positions in SPLITS; -1 where none is settled, LACKING where there is no value to split by

LACKING = -2
LEAST_ROWS = 2  # standard errors need two
NAMES = {name: name for name in SPLITS} | {"training": "train"} | dict.fromkeys(("validation", "val", "dev"), "valid")


REASONS = {"column": "says the split", "group": "says the group", "hash": "decides the split"}


def split_columns(data: Data) -> dict[str, str]:
    """The columns that are for splitting only, and why."""
    what, name = (None, None) if data.split is None else data.split.by
    return {name: REASONS[what]} if name is not None and what in REASONS else {}


def settled(frame: pd.DataFrame, given: Labels, data: Data, first: int) -> tuple[Labels, Digests]:
    """The split of each row of a block that its file or a column says, and a digest of what else it is split by.

    Raises:
        InputError: If a column to split by is not there or has unknown values.
    """
    none = np.zeros(len(frame), dtype=np.uint64)
    if data.split is None or data.split.together:
        return given, none
    what, name = data.split.by
    if name is None:
        return given, content_digests(frame.drop(columns=data.exclude), first, reading_of(data))
    if name not in frame.columns:
        listed = ", ".join(map(str, frame.columns[:8]))
        raise InputError(f"data.split.{what}: no column {name!r}; the columns are [{listed}, ...]")
    digests, lacking = id_digests(frame[name], data.missing)
    if what == "column":
        texts = frame[name].astype(str).str.strip()
        labels = texts.str.lower().map({text: SPLITS.index(split) for text, split in NAMES.items()})
        for row in np.flatnonzero(labels.isna() & ~lacking)[:1]:
            raise InputError(
                f"data.split.column: column {name!r}, row {first + row + 1}: expected train, valid or test, got "
                f"{texts.iloc[row]!r}; mend the cell, or split at random"
            )
        given, digests = labels.fillna(LACKING).to_numpy().astype(np.int8), none
    return np.where(lacking, np.int8(LACKING), given), digests


@dataclass(frozen=True)
class RowDigests:
    """Digests of what rows contain, of which equal ones are copies.

    Attributes:
        columns: Name and position of each column, and whether it holds numbers.
    """

    columns: Sequence[tuple[str, int, bool]]

    def of(self, block: Block) -> Digests:
        """A digest of each row of a block."""
        total = np.zeros(len(block), dtype=np.uint64)
        for name, position, numeric in self.columns:
            numbers = block.numbers(position) if numeric else np.full(len(block), np.nan)
            total += cell_digests(name, numbers, None if numeric else block.texts(position, numeric=False))
        return total


@dataclass(frozen=True)
class Tally:
    """What a block has to say to the split of the table.

    Attributes:
        given: How many rows of each split are settled.
        digests: The groups or strata of rows that are not settled, or settled to be training rows; in order.
        counts: How many such rows each has.
        lacking: How many rows have no value to split by.
        lacking_rows: The first of them.
    """

    given: tuple[int, ...]
    digests: Digests
    counts: NDArray[np.int64]
    lacking: int
    lacking_rows: tuple[int, ...]

    @classmethod
    def of(cls, block: Block, copies: RowDigests | None = None) -> Tally:
        """What a block has to say, if ``copies`` are groups with these."""
        given, by = block.given, block.by if copies is None else copies.of(block)
        digests, counts = np.unique(by[given <= 0], return_counts=True)
        lacking = np.flatnonzero(given == LACKING)
        rows = tuple((block.first + lacking[:NAMED_ROWS]).tolist())
        return cls(tuple(int((given == part).sum()) for part in range(3)), digests, counts, len(lacking), rows)


class Draw(Protocol):
    """A draw of which open rows go where."""

    @property
    def rows(self) -> Sequence[int]:
        """How many rows go to each split."""

    def __call__(self, number: int, by: Digests) -> Labels:
        """The labels of the open rows of the block of this number, of these groups or strata."""


@dataclass(frozen=True)
class Splits:
    """The split of each row: what is settled, and for the others a draw.

    Attributes:
        rows: The number of rows of each split.
        draw: The labels of a block's open rows, in their order; None where all rows are settled.
        copies: What makes rows copies, where these are groups.
    """

    rows: dict[str, int]
    draw: Draw | None
    copies: RowDigests | None = None

    def by(self, block: Block) -> Digests:
        """A digest of the group or stratum of each row of a block."""
        return block.by if self.copies is None else self.copies.of(block)

    def labels(self, block: Block) -> Labels:
        """The split of each row of a block, by its position in SPLITS."""
        labels = block.given.copy()
        if self.draw is not None:
            labels[labels <= 0] = self.draw(block.number, self.by(block)[labels <= 0])
        return labels


def check_values(tallies: Sequence[Tally], data: Data) -> None:
    """Refuse rows that have no value to split by.

    Raises:
        InputError: Naming the column and how many rows, the first of them by their numbers.
    """
    count = sum(tally.lacking for tally in tallies)
    if not count or data.split is None:
        return
    what, name = data.split.by
    numbers = [str(row + 1) for tally in tallies for row in tally.lacking_rows][:NAMED_ROWS]
    dots = ", ..." if count > len(numbers) else ""
    where, fill = (f"row {numbers[0]}", "it") if count == 1 else (f"{count} rows ({', '.join(numbers)}{dots})", "them")
    raise InputError(
        f"data.split.{what}: column {name!r} has no value in {where}; fill {fill}, leave {fill} out of the file, or split by "
        "another column"
    )


def split_rows(
    tallies: Sequence[Tally], data: Data, seed: int, rng: np.random.Generator, copies: RowDigests | None = None
) -> Splits:
    """Draw the split of a table.

    Args:
        tallies: What its blocks have to say.
        data: What to split by: ``files``, ``split`` and ``fractions``.
        seed: What the rows that are drawn follow from.
        rng: What those of the first block, and the groups, follow from.
        copies: What makes rows copies, where these are groups.

    Raises:
        InputError: If a split gets too few rows, or rows have no value to split by.
    """
    check_values(tallies, data)
    given = [sum(tally.given[part] for tally in tallies) for part in range(3)]
    what = None if data.split is None else data.split.by[0]
    fractions = [getattr(data.fractions, split) for split in SPLITS]
    shares = np.array([share if not part or not given[part] else 0.0 for part, share in enumerate(fractions)])
    shares /= sum(shares.tolist())
    draw: Draw | None = None
    rows = dict(zip(SPLITS, given, strict=True))
    if shares[0] < 1 and any(len(tally.digests) for tally in tallies):
        if what == "hash":
            draw = Hashed.drawn(tallies, shares, seed)
        elif what in ("group", "together"):
            draw = Groups.drawn(tallies, shares, rng)
        else:
            draw = Strata.drawn(tallies, shares, seed, rng)
        rows |= {split: draw.rows[part] for part, split in enumerate(SPLITS) if shares[part]}
    for part, (split, count) in enumerate(rows.items()):
        if count < LEAST_ROWS:
            where = "data.fractions" if 0 < shares[part] < 1 else "the split given"
            raise InputError(
                f"{where}.{split}: gives {count} of the {sum(rows.values())} rows of {data.path}, and {LEAST_ROWS} are "
                "needed; use more rows or a larger fraction"
            )
    return Splits(rows, draw, copies)


@dataclass(frozen=True)
class Groups:
    """Whole groups in a split each.

    Attributes:
        digests: The digests of the groups, in order.
        parts: The split of each.
        rows: How many rows go to each split.
    """

    digests: Digests
    parts: Labels
    rows: Sequence[int]

    @classmethod
    def drawn(cls, tallies: Sequence[Tally], shares: NDArray[np.float64], rng: np.random.Generator) -> Self:
        """Groups in random order, each where the middle of its rows falls: no split is off by more than half a group."""
        digests, places = np.unique(np.concatenate([tally.digests for tally in tallies]), return_inverse=True)
        counts = np.bincount(places, weights=np.concatenate([tally.counts for tally in tallies])).astype(np.int64)
        order = rng.permutation(len(digests))
        middles = np.empty(len(digests))
        middles[order] = np.cumsum(counts[order]) - counts[order] / 2
        parts = np.searchsorted(np.cumsum(shares)[:-1] * counts.sum(), middles, side="right").astype(np.int8)
        return cls(digests, parts, [int(counts[parts == part].sum()) for part in range(3)])

    def __call__(self, number: int, by: Digests) -> Labels:
        """The labels of the open rows of a block, of these groups."""
        return self.parts[np.searchsorted(self.digests, by)]


@dataclass(frozen=True)
class Hashed:
    """Rows where their hash falls, whatever other rows there are.

    Attributes:
        seed: What the hash follows from, beside the digests.
        ends: Where the shares of the first and the second split end, in [0, 1].
        rows: How many rows go to each split.
    """

    seed: int
    ends: NDArray[np.float64]
    rows: Sequence[int] = ()

    @classmethod
    def drawn(cls, tallies: Sequence[Tally], shares: NDArray[np.float64], seed: int) -> Self:
        """By the shares of the splits."""
        draw = cls(seed, np.cumsum(shares)[:-1])
        counts = sum(np.bincount(draw(0, tally.digests), weights=tally.counts, minlength=3) for tally in tallies)
        return replace(draw, rows=[int(count) for count in np.asarray(counts)])

    def __call__(self, number: int, by: Digests) -> Labels:
        """The labels of the open rows of a block, of these digests."""
        return np.searchsorted(self.ends, uniform(by, self.seed), side="right").astype(np.int8)


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
        digests: The digests of the strata, in order.
        quotas: For each block the rows of each stratum and split, (blocks, strata, 3).
        seed: What the choice of these rows follows from.
        first: The order of the open rows of the first block.
    """

    digests: Digests
    quotas: NDArray[np.int64]
    seed: int
    first: NDArray[np.int64]

    @classmethod
    def drawn(cls, tallies: Sequence[Tally], shares: NDArray[np.float64], seed: int, rng: np.random.Generator) -> Self:
        """The shares of each stratum, dealt out without replacement to the blocks."""
        digests = np.unique(np.concatenate([tally.digests for tally in tallies]))
        counts = np.zeros((len(tallies), len(digests)), dtype=np.int64)  # (blocks, strata)
        for row, tally in zip(counts, tallies, strict=True):
            row[np.searchsorted(digests, tally.digests)] = tally.counts
        if len(digests) > 1:
            quotas = _dealt(counts.sum(axis=0), shares, rng)
        else:
            total = int(counts.sum())
            valid, test = (round(total * share) for share in shares[1:])
            quotas = np.array([[total - valid - test, valid, test]])
        first, dealer = rng.permutation(counts[0].sum()), np.random.default_rng([seed, 3])
        dealt, left = np.zeros((len(counts), *quotas.shape), dtype=np.int64), quotas.copy()
        for block, rows in enumerate(counts):
            for stratum, n in enumerate(rows):
                rest = left[stratum]
                takes_all = n == rest.sum()
                dealt[block, stratum] = rest if takes_all else dealer.multivariate_hypergeometric(rest, n, method="marginals")
            left -= dealt[block]
        return cls(digests, dealt, seed, first)

    @property
    def rows(self) -> Sequence[int]:
        """How many rows go to each split."""
        return [int(rows) for rows in self.quotas.sum(axis=(0, 1))]

    def __call__(self, number: int, by: Digests) -> Labels:
        """The labels of the open rows of the block of this number, of these strata."""
        codes = np.searchsorted(self.digests, by)
        order = self.first if not number else np.random.default_rng([self.seed, 2, number]).permutation(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]
        labels = np.empty(len(codes), dtype=np.int8)
        labels[order] = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(self.digests)), self.quotas[number].ravel())
        return labels
