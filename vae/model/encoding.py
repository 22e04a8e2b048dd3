"""What the inference network is given of a row: numbers on a common scale, classes one by one, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vae.errors import OptionError


@dataclass(frozen=True)
class Input:
    """How one column goes in: as (h(y) - shift) / scale, or one number for each of its classes.

    Attributes:
        shift: In units of h(y).
        scale: In units of h(y).
        log: Whether h(y) = log(1 + y), for counts; otherwise h(y) = y.
        classes: If not 0, the number of classes 0, ..., classes - 1, which go in as 0 or 1 each.
        missing: Whether its values may be missing (NaN): then an indicator goes in too, and 0 in place of the value.

    Raises:
        OptionError: If the scale is not positive, or there is just one class.
    """

    shift: float = 0.0
    scale: float = 1.0
    log: bool = False
    classes: int = 0
    missing: bool = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise OptionError(f"scale must be greater than 0; got {self.scale}")
        if self.classes == 1 or self.classes < 0:
            raise OptionError(f"classes must be 0 or at least 2; got {self.classes}")

    @classmethod
    def of(cls, column: Input | Mapping[str, Any]) -> Input:
        """An input from itself or from a mapping such as ``{"classes": 3}``."""
        return column if isinstance(column, Input) else cls(**column)


class Encoding(nn.Module):
    """Rows y (..., D) as features (..., `width`) of the inference network.

    Args:
        inputs: One for each column.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        super().__init__()
        self.inputs = inputs
        number = [d for d, column in enumerate(self.inputs) if not column.classes]
        self._classes = [(d, column.classes) for d, column in enumerate(self.inputs) if column.classes]
        self._buffer("number", number, torch.long)
        self._buffer("missing", [d for d, column in enumerate(self.inputs) if column.missing], torch.long)
        self._buffer("log", [self.inputs[d].log for d in number], torch.bool)
        self._buffer("shift", [self.inputs[d].shift for d in number], torch.float64)
        self._buffer("scale", [self.inputs[d].scale for d in number], torch.float64)

    @property
    def width(self) -> int:
        """The number of features."""
        return sum(column.classes or 1 for column in self.inputs) + len(self.get_buffer("missing"))

    def forward(self, y: Tensor) -> Tensor:
        """The features of rows, whose missing values are NaN."""
        values = y[..., self.get_buffer("number")]
        values = torch.where(self.get_buffer("log"), values.clamp_min(0).log1p(), values)
        scaled = (values - self.get_buffer("shift").to(y.dtype)) / self.get_buffer("scale").to(y.dtype)
        classes = [_classes(y[..., d], levels) for d, levels in self._classes]
        indicators = y[..., self.get_buffer("missing")].isnan().to(y.dtype)
        return torch.cat([scaled.nan_to_num(0.0), *classes, indicators], dim=-1)

    def _buffer(self, name: str, values: Sequence[Any], dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=dtype), persistent=False)


def _classes(y: Tensor, levels: int) -> Tensor:
    """0 or 1 for each class; all 0 where y is missing."""
    return one_hot(y.nan_to_num(levels).long(), levels + 1)[..., :levels].to(y.dtype)
