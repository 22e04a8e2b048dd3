"""Zeros and ones of intensities: by a threshold, or at random in proportion to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.columns import Raw
from pipeline.errors import InputError
from pipeline.transforms import Array


def above(raw: Raw, threshold: float) -> Raw:
    """One where a value is greater than the threshold, else zero."""
    x = numbers_of(raw, "data.binarize")
    return Raw(raw.name, np.where(np.isnan(x), np.nan, x > threshold))


def probabilities_of(raws: Sequence[Raw]) -> dict[str, Array]:
    """That each value is drawn as a one: its share of the largest intensity."""
    columns = {raw.name: numbers_of(raw, "data.binarize") for raw in raws}
    for name, x in columns.items():
        for row in np.flatnonzero(~(x >= 0))[:1]:
            raise InputError(
                f"data.binarize: static and dynamic need intensities from 0 on; column {name!r}, row {row + 1} has "
                f"{x[row]:g}; mend it, or set a threshold"
            )
    largest = max(x.max() for x in columns.values()) or 1.0
    return {name: x / largest for name, x in columns.items()}


def drawn(probabilities: dict[str, Array], seed: int) -> list[Raw]:
    """Columns of zeros and ones with these probabilities of a one."""
    rng = np.random.default_rng([seed, 1])  # apart from that of the split
    return [Raw(name, (rng.random(len(p)) < p).astype(np.float64)) for name, p in probabilities.items()]


def numbers_of(raw: Raw, what: str) -> Array:
    """The values of a column for ``what``, the param that needs numbers."""
    if raw.numbers is None:
        row = int(np.flatnonzero(~raw.is_missing)[0])
        held = "dates or durations" if raw.is_date else f"texts, such as {raw.texts[row]!r} in row {row + 1}"
        raise InputError(f"{what}: needs numbers, but column {raw.name!r} holds {held}; leave it out with data.exclude")
    return raw.numbers
