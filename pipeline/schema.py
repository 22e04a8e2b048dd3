"""What prepare did to the data: names, shape, units and the transformation, with its inverse and its change of variables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import InputError
from pipeline.files import PREPARED, write_json

Array = NDArray[np.floating]
ValueType = Literal["continuous", "grid", "binary"]
SPLITS = ("train", "valid", "test")


class Schema(BaseModel):
    """Raw data x and prepared data y = (x - shift) / scale, per column.

    Attributes:
        columns: Names of the columns, in order.
        format: Suffix of the raw file: samples are written in the same format.
        shape: Height and width where a row is an image.
        units: What the raw values are.
        value_type: ``"continuous"``; ``"grid"``, multiples of `step` that were dequantised; or ``"binary"``, in {0, 1}.
        step: Distance between neighbouring raw values, where there is a grid.
        shift: Per column, in raw units.
        scale: Per column, in raw units.
        rows: Rows in each split.
        notes: What was done that a reader should know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[str]
    format: str
    shape: tuple[int, int] | None
    units: str
    value_type: ValueType
    step: float | None
    shift: list[float]
    scale: list[float]
    rows: dict[str, int]
    notes: list[str] = []

    @property
    def log_jacobian(self) -> float:
        """Log |dy/dx| per example in nats: log p(x) = log p(y) + log_jacobian."""
        return -sum(math.log(scale) for scale in self.scale)

    def to_raw(self, y: Array, *, snap: bool = True) -> Array:
        """Prepared values (N, D) in the data's own units.

        Args:
            y: Prepared values.
            snap: Put dequantised values back on their grid (by rounding down, for the noise was added upwards).
        """
        x = np.asarray(y, dtype=np.float64) * self.scale + self.shift
        return np.floor(x / self.step) * self.step if snap and self.value_type == "grid" and self.step else x

    def bits_per_dimension(self, log_likelihood: float) -> float | None:
        """-log2 p per column, or None for continuous data, where a density has no natural unit of bits."""
        if self.value_type == "continuous":
            return None
        step = self.step or 1.0
        return -(log_likelihood / len(self.columns) + math.log(step)) / math.log(2)

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
    """The prepared rows of a split, (N, D), memory-mapped."""
    return np.load(_existing(folder / f"{split}.npy"), mmap_mode="r", allow_pickle=False)


def load_index(split: str, folder: Path = PREPARED) -> NDArray[np.int64]:
    """For each row of a split, the number of its row in the raw file, from 0."""
    return np.load(_existing(folder / f"{split}_index.npy"), allow_pickle=False)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with `dvc repro prepare`")
    return path
