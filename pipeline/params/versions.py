"""Params in the terms of the version that read them, so that a run is shown alike by every later version.

A record says how its stage read its own sections. Older records do not, and `CHANGES` says how to read theirs: whoever changes
a default, or adds or removes an option, adds an entry that says what was before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any

from pipeline.base.errors import InputError
from pipeline.params.file import leaves
from pipeline.params.whole import check_params

NOTHING: Mapping[str, Any] = MappingProxyType({})
NOT_THERE = object()

CHANGES: list[dict[str, Any]] = [  # for each version, the options that the next one added, removed or gave another default
    {
        "evaluate.annealing.temperatures": 200,
        "evaluate.annealing.leapfrog_steps": 5,
        "evaluate.annealing.check_examples": 100,
        "evaluate.annealing.extra": NOT_THERE,
        "evaluate.tolerance": NOT_THERE,
    },
    {
        "data.decimal": NOT_THERE,
        "data.thousands": NOT_THERE,
        "data.signs": NOT_THERE,
        "data.layout": NOT_THERE,
        "data.split.together": NOT_THERE,
        "data.split.hash": NOT_THERE,
    },
]
BEFORE_TOLERANCE, BEFORE_READ_AS, LATEST = 0, 1, len(CHANGES)


def completed(params: Mapping[str, Any], said: Mapping[str, Any] = NOTHING, version: int = LATEST) -> dict[str, Any]:
    """The flattened params, with what was taken for each that is left out.

    Args:
        params: All sections, as they are written.
        said: Sections as they were read, where a record says so.
        version: That which read the others.
    """
    then: dict[str, Any] = reduce(or_, reversed(CHANGES[version:]), {})
    written = dict(leaves(params))
    try:
        flat = check_params(_without(then, params)).flat()
    except InputError:  # of a version that the table does not know
        flat = written
    flat |= {name: written.get(name, default) for name, default in then.items()}
    read = {name: value for name, value in flat.items() if value is not NOT_THERE and name.partition(".")[0] not in said}
    return read | dict(leaves(said))


def _without(names: Collection[str], content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The content without the options of these dotted names."""
    return {
        key: _without(names, value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in content.items()
        if f"{prefix}{key}" not in names
    }
