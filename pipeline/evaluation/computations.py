"""Long computations: each with a bar, and done once over all starts of the stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rich.progress import Progress
from torch import Tensor

from pipeline.evaluation.pieces import Pieces
from vae.evidence import Estimate
from vae.evidence.estimate import Advance
from vae.evidence.from_posterior import join

T = TypeVar("T")


class Work:
    """Shows what is computed, and leaves it for another start.

    Args:
        bar: Where to show it.
        pieces: What an earlier start has computed, and where this one leaves what it computes.
    """

    def __init__(self, bar: Progress, pieces: Pieces) -> None:
        self._bar, self._pieces = bar, pieces

    def whole(self, what: str, total: int | None, compute: Callable[..., T]) -> T:
        """The result of ``compute``, which calls its argument ``advance`` with how much of ``total`` is done."""
        with self._task(what, total) as advance:
            return self._piece(what, advance, total or 0, partial(compute, advance=advance))

    def in_chunks(
        self, what: str, rows: Tensor, ids: Tensor, chunk: int, steps: int, estimate: Callable[..., Estimate]
    ) -> Estimate:
        """The estimate of all rows from chunks as large as the estimator itself would make them: the same bytes.

        Each row, which has an id, counts so many steps; ``estimate`` takes rows, ``ids`` and ``advance``.
        """
        parts = []
        with self._task(what, len(rows) * steps) as advance:
            for these, their in zip(rows.split(chunk), ids.split(chunk), strict=True):
                name = f"{what} from example {int(their[0])} on"  # one stream may be of several sets of rows
                parts.append(
                    self._piece(name, advance, len(these) * steps, partial(estimate, these, ids=their, advance=advance))
                )
        return join(parts)

    def _piece(self, name: str, advance: Advance, total: int, compute: Callable[[], T]) -> T:
        if name in self._pieces:
            advance(total)
        return self._pieces(name, compute)

    @contextmanager
    def _task(self, what: str, total: int | None) -> Iterator[Advance]:
        task = self._bar.add_task(what, total=total, note="")
        yield lambda count: self._bar.advance(task, count)
        if total is None:
            self._bar.update(task, total=1, completed=1)
