"""The kind of a column: as declared, as all columns, or by its values."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.base.errors import InputError
from pipeline.params.data import ColumnOptions, Data
from pipeline.reading.columns.facts import Facts, Numbers
from pipeline.tables.kinds import LEFT_OUT, Kind, LeftOut

MOST_CATEGORIES = 100  # of texts
LARGEST_EXACT = 2**53  # which float64 holds exactly
LARGEST_COUNT = 2**24  # which float32 holds exactly

DECLARED = "declared"

Guess = tuple[Kind | LeftOut, str]


def kinds_of(facts: Sequence[Facts], data: Data) -> dict[str, Guess]:
    """The kind of each column, and why.

    Dequantising makes all columns real numbers, the pixels of an image are all of one kind, and what is drawn as zeros and
    ones is binary.

    Raises:
        InputError: If columns hold texts where the params need numbers.
    """
    kinds: dict[str, Guess] = {}
    for column in facts:
        if (declared := declared_of(column.name, data).declared) is not None:
            kinds[column.name] = declared, DECLARED
            if isinstance(data.binarize, str) and declared not in ("binary", *LEFT_OUT):
                where = f"data.columns.{column.name}"
                raise InputError(f"{where}: data.binarize makes columns binary, not {declared}; take one back")
    free = [column for column in facts if column.name not in kinds]
    if isinstance(data.binarize, str):
        return kinds | {column.name: ("binary", "zeros and ones") for column in free}
    if free and (data.dequantize is not None or data.shape is not None):
        what = "data.shape" if data.dequantize is None else "data.dequantize"
        numbers = [column.numbers_for(what) for column in free]
        kind: Kind = "binary" if all(x.range.greatest <= 1 for x in numbers) else "count"
        if data.dequantize is not None or any(x.range.least < 0 or not x.whole for x in numbers):
            kind = "continuous"
        return kinds | {column.name: (kind, "as all columns") for column in free}
    return kinds | {column.name: guess(column) for column in free}


def declared_of(name: str, data: Data) -> ColumnOptions:
    """What ``data.columns`` says of a column."""
    return data.columns.get(name) or ColumnOptions()


def guess(facts: Facts) -> Guess:
    """The kind of a column by its values, and why."""
    if facts.is_date:
        return "date", "dates"
    if facts.is_number:
        return _guess_numbers(facts.numbers)
    if facts.levels is None:
        return "identifier", f"very many different texts in {facts.observed} rows"
    count = len(facts.levels)
    if count < 2:
        return "constant", f"always {facts.first!r}" if count else "no value"
    if count == 2:
        return "binary", "two texts"
    if count > MOST_CATEGORIES or count > facts.observed / 2:
        return "identifier", f"{count} different texts in {facts.observed} rows"
    return "categorical", f"{count} different texts"


def _guess_numbers(x: Numbers) -> Guess:
    if not x.count:
        return "constant", "no value"
    least, greatest = x.range.least, x.range.greatest
    if least >= 0 and greatest <= 1 and x.whole:
        return "binary", "zeros and ones"
    if least == greatest or (x.range.is_constant and not x.whole):
        return "constant", f"always {least:g}"
    if not x.whole:
        return "continuous", "numbers with fractions"
    if x.count > 2 and x.counts_up:
        return "identifier", "numbers its rows one after another"
    if LARGEST_EXACT < least < greatest < 2**64:
        return "identifier", "whole numbers that are too large to compute with"
    if least < 0 or greatest > LARGEST_COUNT:
        return "continuous", "whole numbers, some " + ("below 0" if least < 0 else "too large for counts")
    if least > 0 and x.distinct is not None:
        return "ordinal", f"{len(x.distinct)} different whole numbers"
    return "count", "whole numbers from 0 on"
