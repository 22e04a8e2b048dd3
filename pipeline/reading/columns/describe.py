"""What prepare refuses in columns as a whole, and what it tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.base.errors import InputError
from pipeline.params.data import Data, SplitBy
from pipeline.reading.columns.coding import Plan
from pipeline.reading.columns.program import Measured, Prepared, Program
from pipeline.reading.columns.writer import Grouping
from pipeline.tables.schema import SPLITS, Column

LARGEST = 1e15  # prepared values beyond it overflow float32 when squared and summed over columns
SMALLEST_STEPS = 256  # float32 must tell apart so many values in a standard deviation; an eighth of it in a step
DIGESTS = 2**20  # that are looked up at a time


def listed(names: Iterable[object]) -> str:
    """The first eight names."""
    texts = [str(name) for name in names]
    return f"[{', '.join(texts[:8])}{', ...' if len(texts) > 8 else ''}]"


def check_trained(program: Program, measured: Sequence[Measured]) -> None:
    """Refuse columns whose density would be unbounded.

    Raises:
        InputError: Naming them.
    """
    pairs = zip(program.plans, measured, strict=True)
    constant = [plan.name for plan, seen in pairs if plan.is_density and plan.step is None and seen.is_constant]
    if constant:
        raise InputError(
            f"column {constant[0]!r} is constant in the training rows"
            + (f" (so are {len(constant) - 1} more)" if len(constant) > 1 else "")
            + f", so its density is unbounded; leave it out with data.exclude: {listed(constant)}, or, if values lie on a "
            "grid, set data.dequantize to its step"
        )


def described(plan: Plan, column: Column, seen: Prepared) -> Column:
    """A column with what came out of it.

    Raises:
        InputError: If float32 cannot hold it.
    """
    largest, spread = max(abs(seen.y_range.least), abs(seen.y_range.greatest)), seen.y.std
    if plan.is_density and not (largest < LARGEST and seen.y.count >= plan.facts.observed and spread > 0):
        raise InputError(
            f"column {plan.name!r}: its values, from {seen.x_range.least:g} to {seen.x_range.greatest:g}, are too extreme to "
            "compute with; mend them, or give them in other units"
        )
    step = np.inf if plan.step is None else plan.step * spread / seen.x.std / 8
    if plan.is_density and np.spacing(np.float32(largest)) * SMALLEST_STEPS > min(spread, step):
        raise InputError(
            f"column {plan.name!r}: its values, about {seen.x.mean:g}, are too large for float32 to tell them apart "
            f"(standard deviation {seen.x.std:g}); set data.scale: standardize, or subtract a constant"
        )
    level = {"centre": seen.level.mean, "spread": seen.level.std or 1.0}
    return column.model_copy(update={**level, "range": (seen.coded.least, seen.coded.greatest)})


def notes(program: Program, measured: Sequence[Measured], ties: Iterable[str], data: Data) -> Iterator[str]:
    """What a reader of the results should know."""
    if isinstance(data.binarize, str):
        when = {"static": "once", "dynamic": "once for held-out rows, anew in each step of the training"}[data.binarize]
        yield f"zeros and ones were drawn with probability intensity / largest intensity, {when}"
    elif data.binarize is not None:
        yield f"values above {data.binarize:g} became 1, others 0"
    plans = program.plans
    for step in sorted({plan.step for plan in plans if plan.step is not None}):
        names = [plan.name for plan in plans if plan.step == step]
        whose = "every value" if len(names) == len(plans) else f"the values of {listed(names)}"
        yield f"uniform noise on [0, {step:g}) was added to {whose}, so that its log-likelihood is a bound for discrete values"
    if whole := [plan.name for plan in plans if plan.is_density and plan.step is None and plan.facts.numbers.whole]:
        yield f"whole numbers under a density, which is not bounded: {listed(whole)}; set dequantize to 1 to compare models"
    yield from ties
    for noisy, what in ((True, "nothing but the noise that was added now"), (False, "kept, as a probability is bounded")):
        pairs = zip(plans, measured, strict=True)
        constant = [plan.name for plan, seen in pairs if (plan.step is not None) == noisy and seen.is_constant]
        if constant:
            yield f"constant in the training rows, and {what}: {listed(constant)}"


def split_notes(by: SplitBy, groups: Grouping | None) -> Iterator[str]:
    """Sentences on what rows were split by, and on its groups."""
    what, name = by.by
    if what == "hash":
        content = "their content" if name is None else repr(name)
        yield f"rows were split by a hash of {content}, so that each stays in its split whatever else is in the file"
    if groups is None:
        return
    least, most, count = groups.sizes.min(), groups.sizes.max(), len(groups.sizes)
    sizes = f"{least} to {most} rows, median {np.median(groups.sizes):g}" if least < most else f"{most} rows each"
    if what == "together":
        copies = f"{groups.sizes.sum()} rows are {count} different ones ({sizes})"
        yield f"{copies}: copies were kept in one split, and all errors are over the different rows"
    else:
        yield f"rows were split by {count} groups of {name!r} ({sizes})"
    if groups.divided:
        yield (
            f"{groups.divided} of these groups have rows in more than one of the files in data.files, so that what is held "
            "out of them is not new to the model: give each file its own groups"
        )


def repeated(digests: dict[str, Path], data: Data) -> Iterator[str]:
    """Sentences on held-out rows that were trained on, which are no test of a model, unless rows have few values to take.

    Args:
        digests: For each split a file with the digests of its rows.
        data: The params.
    """
    free = data.split is None and data.files is None
    remedy = "keep them in one split by data.split: {together: copies}" if free else "remove them"
    for split in SPLITS[1:]:
        held_out, counts = np.unique(np.fromfile(digests[split], np.uint64), return_counts=True)
        known = np.zeros(len(held_out), dtype=bool)
        train = np.memmap(digests["train"], np.uint64, mode="r")
        for first in range(0, len(train), DIGESTS):
            known |= np.isin(held_out, train[first : first + DIGESTS])
        if count := int(counts[known].sum()):
            yield (
                f"{count} of {counts.sum()} {split} rows are also among the training rows, value for value: if they are "
                f"copies, {remedy}; if rows have few values to take, it is to be expected"
            )
