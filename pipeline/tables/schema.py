"""What prepare made of the data: of each column its kind, its coding or transformation, and the way back to raw values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.base.errors import InputError
from pipeline.base.files import PREPARED, write_json
from pipeline.tables.kinds import Kind
from pipeline.tables.slices import slices
from pipeline.tables.statistics import Array
from pipeline.tables.transforms import AnyTransform, Identity

SPLITS = ("train", "valid", "test")
PROBABILITIES = "train_probabilities.npy"
GROUPS = "{}_groups.npy"
OTHER = "other"  # the category of values that no training row has, where a column declares it


class Column(BaseModel):
    """One column: raw values x, or texts, and prepared values y; a missing value is NaN in both.

    Attributes:
        name: What the raw file calls it.
        kind: ``"continuous"``, a real number; ``"count"``, a whole number from 0 on; ``"binary"``, 0 or 1, or one of two
            categories; ``"categorical"`` and ``"ordinal"``, the position of the value among `categories`.
        categories: The raw values that 0, 1, ... stand for, as text; null for numbers.
        numeric: Whether the raw values are numbers.
        other: Whether the last category is for all values that no training row has.
        step: Distance between neighbouring raw values, where uniform noise of this width was added.
        padded: Whether its numbers may have leading zeros, which make codes of others.
        transform: What a continuous column goes through.
        missing: How many rows lack it, in all splits.
        centre: Mean over the observed training rows, of y (of log(1 + y) for counts).
        spread: Standard deviation likewise; 1 where it is 0.
        range: Least and largest x, over all rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Kind
    categories: list[str] | None = None
    numeric: bool = True
    other: bool = False
    step: float | None = None
    padded: bool = Field(default=False, exclude_if=lambda padded: not padded)
    transform: AnyTransform = Identity()
    missing: int = 0
    centre: float = 0.0
    spread: float = 1.0
    range: tuple[float, float] = (0.0, 0.0)

    @property
    def is_density(self) -> bool:
        """Whether the likelihood of the column is a density, not a probability."""
        return self.kind == "continuous"

    @property
    def is_whole(self) -> bool:
        """Whether the raw values of the column are whole numbers, and written so."""
        return not self.is_density or (self.step is not None and float(self.step).is_integer())

    @property
    def log_unit(self) -> float:
        """Log of a standard deviation of x where most values are: other units of x change it as they change -log p."""
        slope = self.transform.log_derivative(np.array([self.centre]))
        return math.log(self.spread) - float(slope[0]) if self.is_density else 0.0

    def numbers(self, y: Array, *, snap: bool = True) -> Array:
        """Raw numbers; of a category its position. ``snap`` rounds dequantised values down to their grid."""
        x = self.transform.inverse(np.asarray(y, dtype=np.float64))
        return np.floor(x / self.step) * self.step if snap and self.step else x

    def values(self, y: Array) -> pd.Series:
        """Raw values as they stand in the file."""
        x = self.numbers(y)
        if self.categories is not None:
            texts = pd.Series(self.categories, dtype=object)
            named = texts.reindex(np.where(np.isnan(x), -1, x).astype(int)).reset_index(drop=True)
            return pd.to_numeric(named) if self.numeric else named
        if self.is_whole:
            return pd.Series(x).astype("Int64" if np.isnan(x).any() else "int64")
        return pd.Series(x)


def number_text(x: float) -> str:
    """A number as it stands among categories: whole ones without a point."""
    return str(int(x)) if float(x).is_integer() else repr(float(x))


class Reading(BaseModel):
    """How raw values were read, so that those of another file can be.

    Attributes:
        missing: Values that stand for no value.
        decimal: What stands before the fraction of a number.
        thousands: What stands between groups of three digits; null for nothing.
        signs: What may stand before or behind a number and is no part of it, or says that it is below 0: ``()`` and ``-``.
        binarize: How numbers became zeros and ones; null if they did not.
        largest: The largest intensity, where zeros and ones were drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    missing: list[str | int | float] = []
    decimal: str = "."
    thousands: str | None = None
    signs: list[str] = []
    binarize: float | Literal["static", "dynamic"] | None = None
    largest: float | None = None


class Schema(BaseModel):
    """All columns.

    Attributes:
        columns: In the order of the raw file.
        left_out: Why a column was left out, by name.
        format: Suffix of the raw file: samples are written in the same format.
        shape: Height, width and channels where a row is an image.
        units: What the raw values are.
        rows: Rows in each split.
        reading: How raw values were read.
        notes: What was done that a reader should know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[Column]
    left_out: dict[str, str] = {}
    format: str
    shape: tuple[int, int, int] | None
    units: str
    rows: dict[str, int]
    reading: Reading = Reading()
    notes: list[str] = []

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> set[Kind]:
        """The kinds that there are."""
        return {column.kind for column in self.columns}

    @property
    def is_binary(self) -> bool:
        """Whether all columns are binary."""
        return self.kinds == {"binary"}

    @property
    def has_missing(self) -> bool:
        """Whether any value is missing."""
        return any(column.missing for column in self.columns)

    @property
    def is_plain(self) -> bool:
        """Whether there are only complete columns of real numbers, or only complete columns of zeros and ones."""
        return len(self.kinds) == 1 and self.kinds <= {"continuous", "binary"} and not self.has_missing

    def log_jacobian(self, y: Array) -> Array:
        """log |dy/dx| per row of prepared values (N, D), over the observed ones, (N,): log p(x) = log p(y) + log |dy/dx|."""
        return self.log_derivatives(y).sum(axis=1)

    def log_derivatives(self, y: Array) -> Array:
        """log dy/dx of each prepared value, (N, D); 0 where it is missing."""
        y = np.asarray(y, dtype=np.float64)
        terms = np.stack([column.transform.log_derivative(y[:, d]) for d, column in enumerate(self.columns)], axis=1)
        return np.where(np.isnan(y), 0.0, terms)

    def log_missing(self, y: Array) -> Array:
        """log p of the missing values of each row of y (N, D), if each had a density of one per standard deviation, (N,).

        Added to log p of what is observed: then no unit of a column decides between rows with different gaps.
        """
        return np.where(np.isnan(y), [-column.log_unit for column in self.columns], 0.0).sum(axis=1)

    def to_raw(self, y: Array, *, snap: bool = True) -> Array:
        """Prepared values (N, D) in the data's own units; of a category its position."""
        y = np.asarray(y)
        return np.stack([column.numbers(y[..., d], snap=snap) for d, column in enumerate(self.columns)], axis=-1)

    def limits(self, y: Array) -> tuple[float, float]:
        """The least and the largest raw number in prepared rows (N, D)."""
        ends = [(np.nanmin(raw), np.nanmax(raw)) for raw in map(self.to_raw, slices(y))]
        return float(np.nanmin(ends)), float(np.nanmax(ends))

    def table(self, y: Array) -> pd.DataFrame:
        """Prepared values (N, D) as a table like the raw one."""
        return pd.DataFrame({column.name: column.values(y[:, d]) for d, column in enumerate(self.columns)})

    def bits_per_dimension(self, log_likelihood: float) -> float | None:
        """-log2 p per column; None where there are no bits of a column.

        A density of real numbers has no natural unit; columns of several kinds, or with missing values, have no common one.
        """
        steps = [1.0 if not column.is_density else column.step for column in self.columns]
        if len(self.kinds) > 1 or self.has_missing or None in steps:
            return None
        widths = math.fsum(math.log(step) for step in steps if step is not None)
        return -(log_likelihood + widths) / len(self.columns) / math.log(2)

    def save(self, folder: Path) -> None:
        """Write ``schema.json``."""
        write_json(folder / "schema.json", self.model_dump())


def load_schema(folder: Path = PREPARED) -> Schema:
    """Read ``schema.json``.

    Raises:
        InputError: If it is missing or damaged.
    """
    path = _existing(folder / "schema.json")
    try:
        return Schema.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise InputError(
            f"{path} is damaged or old ({where}: {problem['msg']}); make it with `dvc repro -f prepare`"
        ) from error


def load_split(split: str, folder: Path = PREPARED) -> NDArray[np.float32]:
    """The prepared rows of a split, (N, D), memory-mapped; NaN where a value is missing."""
    return np.load(_existing(folder / f"{split}.npy"), mmap_mode="r", allow_pickle=False)


def load_probabilities(folder: Path = PREPARED) -> NDArray[np.float32] | None:
    """The probabilities of ones among training values; None unless training is to draw these anew in each step."""
    path = folder / PROBABILITIES
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None


def load_index(split: str, folder: Path = PREPARED) -> NDArray[np.int64]:
    """The numbers that the rows of a split have in the raw file, from 0."""
    return np.load(_existing(folder / f"{split}_index.npy"), allow_pickle=False)


def load_groups(split: str, folder: Path = PREPARED) -> NDArray[np.int32] | None:
    """The numbers of the groups that the rows of a split are in, from 0; None where rows were not split by groups."""
    path = folder / GROUPS.format(split)
    return np.load(path, allow_pickle=False) if path.is_file() else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with `dvc repro prepare`")
    return path
