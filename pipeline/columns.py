"""The kind of each raw column, inferred or declared, and its values as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.kinds import Kind, LeftOut
from pipeline.schema import OTHER, Column, number_text
from pipeline.sections import ColumnOptions
from pipeline.transforms import TRANSFORMS, Array

MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "NaT"]
)  # texts that stand for no value, as pandas reads them
MOST_LEVELS = 10  # of whole numbers that do not begin at 0, to be levels of an order
MOST_CATEGORIES = 100  # of texts
LARGEST_EXACT = 2**53  # which float64 holds exactly
LARGEST_COUNT = 2**24  # which float32 holds exactly
LEADING_ZERO = r"[+-]?0\d"
DATES = ("ISO8601", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y")


@dataclass(frozen=True)
class Raw:
    """A column as it was read.

    Attributes:
        name: Of the column.
        numbers: float64, NaN where missing; None if it holds texts.
        words: The texts, None where missing; None if it holds numbers.
        is_date: Whether it holds dates.
    """

    name: str
    numbers: Array | None
    words: NDArray[np.object_] | None = None
    is_date: bool = False

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.words if self.numbers is None else self.numbers)  # type: ignore[arg-type]

    @cached_property
    def texts(self) -> NDArray[np.object_]:
        """The values as texts, None where missing."""
        if self.numbers is None:
            return np.array([], dtype=object) if self.words is None else self.words
        return np.array([None if math.isnan(x) else number_text(x) for x in self.numbers.tolist()], dtype=object)

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """Per row."""
        return (
            np.isnan(self.numbers) if self.numbers is not None else np.array([text is None for text in self.texts], dtype=bool)
        )


def raw_columns(table: pd.DataFrame, codes: Sequence[str | float] = ()) -> list[Raw]:
    """Each column of a table, with the missing values and ``codes`` recognised.

    Raises:
        InputError: Naming column, row and value of the first that is neither a number nor a text, or a text among numbers.
    """
    return [_raw(table[name], codes) for name in table.columns]


def _raw(column: pd.Series, codes: Sequence[str | float]) -> Raw:
    name = str(column.name)
    if column.dtype.kind in "mM":
        return Raw(name, None, _texts(column), is_date=True)
    if pd.api.types.is_numeric_dtype(column):
        return _numeric(name, column.astype("float64").to_numpy(na_value=np.nan), codes)
    _refuse_objects(column)
    texts = _texts(column.map(str.strip, na_action="ignore"))
    given = pd.Series(texts)
    texts[given.isin([*MISSING, *map(_code_text, codes)]).to_numpy()] = None
    observed = np.array([text is not None for text in texts], dtype=bool)
    numbers = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float64)
    is_number = observed & ~np.isnan(numbers)
    if given[is_number].str.match(LEADING_ZERO).any():  # codes, of which 01 and 1 are not the same
        return Raw(name, None, texts)
    if observed.any() and is_number.sum() == observed.sum():
        return _numeric(name, numbers, codes)
    _refuse_mixture(name, texts, observed & ~is_number, is_number)
    return Raw(name, None, texts, is_date=_is_date(texts[observed]))


def _numeric(name: str, numbers: Array, codes: Sequence[str | float]) -> Raw:
    numbers = np.where(np.isin(numbers, [float(code) for code in codes if _is_number(code)]), np.nan, numbers)
    for row in np.flatnonzero(np.isinf(numbers))[:1]:
        raise InputError(
            f"column {name!r}, row {row + 1}: expected a finite number, got {numbers[row]}; mend the cell, or declare the "
            "value as missing with data.missing"
        )
    return Raw(name, numbers)


def _code_text(code: str | float) -> str:
    return code if isinstance(code, str) else number_text(code)


def _is_number(code: str | float) -> bool:
    try:
        return math.isfinite(float(code))
    except ValueError:
        return False


def _texts(column: pd.Series) -> NDArray[np.object_]:
    return np.array([None if pd.isna(value) else str(value) for value in column], dtype=object)


def _refuse_objects(column: pd.Series) -> None:
    for row, value in enumerate(column):
        if not isinstance(value, str) and not (pd.api.types.is_scalar(value) and pd.isna(value)):
            raise InputError(
                f"column {column.name!r}, row {row + 1}: expected a number or a text, got {value!r}; leave the column out "
                "with data.exclude"
            )


def _refuse_mixture(name: str, texts: NDArray[np.object_], odd: NDArray[np.bool_], numbers: NDArray[np.bool_]) -> None:
    """Refuse texts among numbers, unless they are the greater part: then all are texts."""
    rows = np.flatnonzero(odd)
    if len(rows) and numbers.sum() >= len(rows):
        others = ", ".join(str(row + 1) for row in rows[1:6])
        more = f" (so are {len(rows) - 1} more, in rows {others}{', ...' if len(rows) > 6 else ''})" if len(rows) > 1 else ""
        raise InputError(
            f"column {name!r}, row {rows[0] + 1}: expected a number, got {texts[rows[0]]!r}{more}; mend the cell, declare "
            f"it as missing with data.missing, or leave the column out with data.exclude"
        )


def _is_date(texts: NDArray[np.object_]) -> bool:
    found = pd.Series(texts)
    return len(found) > 0 and any(pd.to_datetime(found, format=form, errors="coerce").notna().all() for form in DATES)


def guess(raw: Raw) -> tuple[Kind | LeftOut, str]:
    """The kind of a column, and why."""
    if raw.is_date:
        return "date", "dates"
    return _guess_texts(raw) if raw.numbers is None else _guess_numbers(raw.numbers[~np.isnan(raw.numbers)])


def _guess_texts(raw: Raw) -> tuple[Kind | LeftOut, str]:
    observed = raw.texts[~raw.is_missing]
    count = len(set(observed))
    if count < 2:
        return "constant", f"always {observed[0]!r}" if count else "no value"
    if count == 2:
        return "binary", "two texts"
    if count > MOST_CATEGORIES or count > len(observed) / 2:
        return "identifier", f"{count} different texts in {len(observed)} rows"
    return "categorical", f"{count} different texts"


def _guess_numbers(x: Array) -> tuple[Kind | LeftOut, str]:
    values = np.unique(x)
    if np.isin(values, (0, 1)).all() and len(values):
        return "binary", "zeros and ones"
    if len(values) < 2 or (values[-1] - values[0] <= 1e-12 * np.abs(values).max() and (values != np.round(values)).any()):
        return "constant", f"always {values[0]:g}" if len(values) else "no value"
    if (x != np.round(x)).any():
        return "continuous", "numbers with fractions"
    if len(x) > 2 and (np.diff(x) == 1).all():
        return "identifier", "numbers its rows one after another"
    if LARGEST_EXACT < values[0] < values[-1] < 2**64:
        return "identifier", "whole numbers that are too large to compute with"
    if values[0] < 0 or values[-1] > LARGEST_COUNT:
        return "continuous", "whole numbers, some " + ("below 0" if values[0] < 0 else "too large for counts")
    if values[0] > 0 and len(values) <= MOST_LEVELS:
        return "ordinal", f"{len(values)} different whole numbers"
    return "count", "whole numbers from 0 on"


def code(raw: Raw, kind: Kind, options: ColumnOptions, train: NDArray[np.int64]) -> tuple[Column, Array]:
    """A column's description, and its values x: numbers, or positions of categories; NaN where missing.

    Args:
        raw: The column.
        kind: What it is taken for.
        options: What ``data.columns`` says of it.
        train: Rows of the training split.

    Raises:
        InputError: If a value is none of this kind.
    """
    if raw.is_missing[train].all():
        raise InputError(f"column {raw.name!r} has no value in the training rows; leave it out with data.exclude")
    described: dict[str, Any] = {"name": raw.name, "kind": kind, "missing": int(raw.is_missing.sum())}
    if kind in ("continuous", "count") or (kind == "binary" and _is_zero_one(raw)):
        x = _of_kind(raw, kind)
        described["step"] = options.dequantize if kind == "continuous" else None
    else:
        categories = _categories(raw, kind, options, train)
        x = _positions(raw, kind, categories, options)
        described |= {"categories": categories, "numeric": raw.numbers is not None and not options.other}
    return Column(**described, range=(float(np.nanmin(x)), float(np.nanmax(x)))), x


def _is_zero_one(raw: Raw) -> bool:
    return raw.numbers is not None and bool(np.isin(raw.numbers[~raw.is_missing], (0, 1)).all())


def _of_kind(raw: Raw, kind: Kind) -> Array:
    x = raw.numbers
    if x is None:
        raise InputError(f"data.columns.{raw.name}: {kind} needs numbers, but the column holds texts such as {_first(raw)!r}")
    if kind == "count":
        bad = (x < 0) | (x != np.round(x)) & ~np.isnan(x) | (x > LARGEST_COUNT)
        for row in np.flatnonzero(bad)[:1]:
            raise InputError(
                f"column {raw.name!r}, row {row + 1}: a count must be a whole number from 0 to {LARGEST_COUNT:,}; got "
                f"{x[row]:g}; mend the cell, or set data.columns.{raw.name} to continuous"
            )
    return x


def _first(raw: Raw) -> str:
    return str(next(text for text in raw.texts if text is not None))


def _categories(raw: Raw, kind: Kind, options: ColumnOptions, train: NDArray[np.int64]) -> list[str]:
    """In their order: as declared, or of the numbers, or of the alphabet; those of the training rows."""
    seen = sorted({str(text) for text in raw.texts[train] if text is not None}, key=_order(raw))
    if options.order is not None:
        seen = [_known(raw, value) for value in options.order]
    elif kind == "ordinal" and raw.numbers is None:
        raise InputError(
            f"data.columns.{raw.name}: ordinal texts need their order, from least to greatest, as in "
            f"{{kind: ordinal, order: [{', '.join(seen)}]}}"
        )
    if kind == "binary" and len(seen) != 2:
        raise InputError(
            f"column {raw.name!r} is binary, but the training rows have {len(seen)} different values: {', '.join(seen[:5])}; "
            f"set data.columns.{raw.name} to {{kind: binary, order: [...]}} with both, to categorical, or leave it out"
        )
    if len(seen) < 2:
        raise InputError(
            f"column {raw.name!r} has just one value in the training rows, {', '.join(seen)}; leave it out with data.exclude"
        )
    return [*seen, OTHER] if options.other else seen


def _known(raw: Raw, value: str | float) -> str:
    """A declared value as it stands in the column."""
    return number_text(float(value)) if raw.numbers is not None and _is_number(value) else _code_text(value)


def _order(raw: Raw) -> Any:
    return str if raw.numbers is None else float


def _positions(raw: Raw, kind: Kind, categories: list[str], options: ColumnOptions) -> Array:
    known = {text: float(position) for position, text in enumerate(categories)}
    other = known[OTHER] if options.other else None
    x = np.array([math.nan if text is None else known.get(text, -1.0) for text in raw.texts])
    for row in np.flatnonzero(x < 0)[:1] if other is None else ():
        listed = ", ".join(categories[:8]) + ", ..." * (len(categories) > 8)
        source = "data.columns" if options.order else "the training rows"
        raise InputError(
            f"column {raw.name!r}, row {row + 1}: {raw.texts[row]!r} is none of {listed}, the categories of {source}; mend "
            f"the cell, or set data.columns.{raw.name} to {{kind: {kind}, other: true}}"
        )
    return np.where(x < 0, other, x) if other is not None else x


def fit_transform(column: Column, x: Array, transform: str, train: NDArray[np.int64]) -> tuple[Column, Array]:
    """The column with its transformation, fitted to the training rows, and its prepared values y.

    Raises:
        InputError: If a value has no image under it.
    """
    family, observed = TRANSFORMS[transform if column.is_density else "none"], x[~np.isnan(x)]
    least = family.model_fields["least"].default
    if least is not None and (observed <= least).any():
        raise InputError(
            f"data.columns.{column.name}.transform: {transform} needs values greater than {least:g}; got {observed.min():g}; "
            "choose standardize or quantile"
        )
    try:
        fitted = family.fit(x[train][~np.isnan(x[train])])
    except ValueError as error:
        raise InputError(f"data.columns.{column.name}.transform: {error}") from error
    with np.errstate(all="ignore"):  # prepare refuses what comes of it
        y = fitted.forward(x)
        level = np.log1p(y[train]) if column.kind == "count" else y[train]
        centre, spread = float(np.nanmean(level)), float(np.nanstd(level))
    described = {"transform": fitted, "centre": centre, "spread": spread or 1.0}
    return column.model_copy(update=described), y
