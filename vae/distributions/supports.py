"""The values over which a likelihood is a density or a probability.

Predicates work on NumPy arrays and on tensors alike, and this module imports no torch: preparing data needs the supports too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Support:
    """A set of numbers.

    Attributes:
        name: As it stands in schemas.
        description: What a value must be, for messages.
        contains: Elementwise, whether values are in it; never NaN or infinity.
        inner: Some value in it.
    """

    name: str
    description: str
    contains: Callable[[Any], Any]
    inner: float = 0.0


REAL = Support("real", "finite", lambda y: abs(y) < float("inf"))
POSITIVE = Support("positive", "greater than 0", lambda y: (y > 0) & (y < float("inf")), inner=1.0)
UNIT = Support("unit", "strictly between 0 and 1", lambda y: (y > 0) & (y < 1), inner=0.5)
CLOSED_UNIT = Support("closed unit", "from 0 to 1", lambda y: (y >= 0) & (y <= 1), inner=0.5)
BINARY = Support("binary", "0 or 1", lambda y: (y == 0) | (y == 1))
COUNT = Support("count", "a whole number from 0 on", lambda y: (y >= 0) & (y == y.round()) & (y < float("inf")))


def whole_numbers(levels: int) -> Support:
    """The whole numbers 0, ..., levels - 1."""
    description = f"a whole number from 0 to {levels - 1}"
    return Support(f"0..{levels - 1}", description, lambda y: (y >= 0) & (y < levels) & (y == y.round()))
