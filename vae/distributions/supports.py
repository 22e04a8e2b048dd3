"""The values over which a likelihood is a density or a probability.

They work on NumPy arrays and on tensors alike, and this module imports no torch: preparing data needs the supports too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Support:
    """A set of numbers: an interval, or the whole numbers in it.

    Attributes:
        name: As it stands in schemas.
        description: What a value must be, for messages.
        low: Where it begins.
        high: Where it ends.
        closed: Whether finite ends belong to it.
        whole: Whether only whole numbers do.
        inner: Some value in it.
    """

    name: str
    description: str
    low: float = -math.inf
    high: float = math.inf
    closed: bool = True
    whole: bool = False
    inner: float = 0.0

    def contains(self, y: Any) -> Any:
        """Elementwise, whether values are in it; never NaN or infinity."""
        above = (y >= self.low) if self.closed and math.isfinite(self.low) else (y > self.low)
        below = (y <= self.high) if self.closed and math.isfinite(self.high) else (y < self.high)
        return above & below & (y == y.round()) if self.whole else above & below


REAL = Support("real", "finite")
POSITIVE = Support("positive", "greater than 0", low=0.0, closed=False, inner=1.0)
UNIT = Support("unit", "strictly between 0 and 1", low=0.0, high=1.0, closed=False, inner=0.5)
CLOSED_UNIT = Support("closed unit", "from 0 to 1", low=0.0, high=1.0, inner=0.5)
BINARY = Support("binary", "0 or 1", low=0.0, high=1.0, whole=True)
COUNT = Support("count", "a whole number from 0 on", low=0.0, whole=True)


def whole_numbers(levels: int) -> Support:
    """The whole numbers 0, ..., levels - 1."""
    return Support(f"0..{levels - 1}", f"a whole number from 0 to {levels - 1}", low=0.0, high=levels - 1, whole=True)
