"""Which rows train, select and test: as given, or at random by the seed, whole groups together or strata alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.schema import SPLITS
from pipeline.sections import Data

Rows = NDArray[np.int64]
Split = dict[str, Rows]
Draw = Callable[[Rows, Mapping[str, float], np.random.Generator], Split]

LEAST_ROWS = 2  # standard errors need two
NAMES = {name: name for name in SPLITS} | {"training": "train"} | dict.fromkeys(("validation", "val", "dev"), "valid")


def split_rows(table: pd.DataFrame, given: NDArray[np.object_], data: Data, rng: np.random.Generator) -> Split:
    """Row numbers of each split, in the order of the file: disjoint, together all rows.

    Args:
        table: All columns.
        given: For each row the split that its file is for, or None.
        data: What to split by: ``files``, ``split`` and ``fractions``.
        rng: Of the rows that are drawn.

    Raises:
        InputError: If a split gets too few rows, or a column to split by is not there or has gaps or unknown values.
    """
    if data.split is not None and data.split.column is not None:
        given = _of_column(table, data.split.column)
    index = {split: np.flatnonzero(given == split) for split in SPLITS if (given == split).any()}
    open_ones = {split: getattr(data.fractions, split) for split in SPLITS if split not in index or split == "train"}
    if len(open_ones) > 1:
        rows = index.get("train", np.flatnonzero(given == None))  # noqa: E711  # elementwise
        total = sum(open_ones.values())
        shares = {split: share / total for split, share in open_ones.items()}
        index |= _draw(table, data)(rows, shares, rng)
    for split in SPLITS:
        if (count := len(index.get(split, ()))) < LEAST_ROWS:
            where = "data.fractions" if split in open_ones and len(open_ones) > 1 else "the split given"
            raise InputError(
                f"{where}.{split}: gives {count} of the {len(table)} rows of {data.path}, and {LEAST_ROWS} are needed; use "
                "more rows or a larger fraction"
            )
    return {split: np.sort(index[split]) for split in SPLITS}


def split_columns(data: Data) -> dict[str, str]:
    """The columns that are for splitting only, and why."""
    by = data.split
    if by is None:
        return {}
    return {name: f"says the {what}" for name, what in ((by.column, "split"), (by.group, "group")) if name is not None}


def _of_column(table: pd.DataFrame, name: str) -> NDArray[np.object_]:
    values = _column(table, name, "data.split.column").astype(str).str.strip()
    found = values.str.lower().map(NAMES)
    for row in np.flatnonzero(found.isna())[:1]:
        raise InputError(
            f"data.split.column: column {name!r}, row {row + 1}: expected train, valid or test, got {values.iloc[row]!r}; "
            "mend the cell, or split at random"
        )
    return found.to_numpy(dtype=object)


def _column(table: pd.DataFrame, name: str, where: str) -> pd.Series:
    if name not in table.columns:
        raise InputError(f"{where}: no column {name!r}; the columns are [{', '.join(map(str, table.columns[:8]))}, ...]")
    values = table[name]
    for row in np.flatnonzero(values.isna() | (values.astype(str).str.strip() == ""))[:1]:
        raise InputError(f"{where}: column {name!r} has no value in row {row + 1}; fill it, or split by another column")
    return values


def _draw(table: pd.DataFrame, data: Data) -> Draw:
    by = data.split
    if by is not None and by.group is not None:
        codes = pd.factorize(_column(table, by.group, "data.split.group"), sort=True)[0]
        return lambda rows, shares, rng: _by_groups(rows, codes[rows], shares, rng)
    if by is not None and by.stratify is not None:
        strata = pd.factorize(_column(table, by.stratify, "data.split.stratify"), sort=True)[0]
        return lambda rows, shares, rng: _by_strata(rows, strata[rows], shares, rng)
    return _at_random


def _at_random(rows: Rows, shares: Mapping[str, float], rng: np.random.Generator) -> Split:
    order = rng.permutation(len(rows))
    counts = {split: round(len(rows) * share) for split, share in shares.items() if split != "train"}
    ends = len(rows) - np.cumsum([0, *reversed(counts.values())])[::-1]
    return {split: rows[part] for split, part in zip(shares, np.split(order, ends[:-1]), strict=True)}


def _by_groups(rows: Rows, groups: Rows, shares: Mapping[str, float], rng: np.random.Generator) -> Split:
    """Groups in random order, each where the middle of its rows falls, so that no split is off by more than half a group."""
    present, position, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(present))
    middles = np.empty(len(present))
    middles[order] = np.cumsum(counts[order]) - counts[order] / 2
    part = np.searchsorted(np.cumsum(list(shares.values()))[:-1] * len(rows), middles, side="right")
    return {split: rows[part[position] == number] for number, split in enumerate(shares)}


def _by_strata(rows: Rows, strata: Rows, shares: Mapping[str, float], rng: np.random.Generator) -> Split:
    """Rows in the order of their strata, at random within each, dealt out so that every stretch has each split's share."""
    left, index, total = np.lexsort((rng.random(len(rows)), strata)), {}, 1.0
    for split in reversed([split for split in shares if split != "train"]):
        counted = np.floor(np.arange(len(left) + 1) * (shares[split] / total) + rng.random())
        taken = np.diff(counted) > 0
        index[split], left = rows[left[taken]], left[~taken]
        total -= shares[split]
    return {"train": rows[left]} | index
