"""Values that many training rows share, of which whoever fits a density to them should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial, reduce
from operator import add, or_

import numpy as np

from pipeline.reading.columns.blocks import Block
from pipeline.reading.columns.kept import Blocks
from pipeline.reading.columns.passes import over
from pipeline.reading.columns.program import Measured, Program

MANY = 0.1  # share of the training rows with one value, from which a density of it needs a word

Tie = tuple[int, float]  # a column, and a value in it


def ties(program: Program, measurements: Sequence[Measured], blocks: Blocks) -> Iterator[str]:
    """A sentence for each value of a density that many training rows have, the most frequent of a column first.

    What more than a tenth of the rows of a table have, more than a tenth have in one of its blocks: the first pass finds such
    values, at most nine of a column in each block, and the second counts them in all blocks.
    """
    columns = [d for d, plan in enumerate(program.plans) if plan.is_density and plan.step is None]
    if not columns:
        return
    candidates = reduce(or_, over(blocks, "looking for ties", partial(frequent, program, columns)))
    parts = over(blocks, "counting ties", partial(counted, program, candidates)) if candidates else ()
    counts: Counter[Tie] = reduce(add, parts, Counter())
    for (d, value), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        if count > MANY * (observed := measurements[d].observed):
            yield (
                f"{count} of {observed} training rows have {value:g} in column {program.plans[d].name!r}: a density there is "
                "bounded only by the floor of its variance"
            )


def frequent(program: Program, columns: Sequence[int], block: Block) -> frozenset[Tie]:
    """The values that many training rows of a block have."""
    train = program.splits.labels(block) == 0
    ties = set[Tie]()
    for d in columns:
        x = block.numbers(program.plans[d].position)[train]
        values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
        ties |= {(d, value) for value in (values[counts > MANY * counts.sum()] + 0.0).tolist()}
    return frozenset(ties)


def counted(program: Program, candidates: Collection[Tie], block: Block) -> Counter[Tie]:
    """How many training rows of a block have each candidate."""
    train = program.splits.labels(block) == 0
    return Counter(
        {(d, value): int((block.numbers(program.plans[d].position)[train] == value).sum()) for d, value in candidates}
    )
