"""Long computations in parts: each with a bar, shared by the workers, and done once over all starts of the stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeVar

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from pipeline.evaluation.pieces import Pieces
from pipeline.evaluation.workers import Call, Workers

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What one worker computes at a time.

    Attributes:
        name: Of no other part of the evaluation.
        size: How much of the whole it is.
        made: Makes the call that computes it, from the model, when its turn comes: calls carry their rows.
    """

    name: str
    size: int
    made: Callable[[], Call]


@dataclass(frozen=True)
class Computation(Generic[T]):
    """What can be computed in parts.

    Attributes:
        bar: The name of its bar, which it may share with others.
        parts: Of it.
        joined: What the parts' results are together.
        kept: Whether another start finds the parts.
    """

    bar: str
    parts: Sequence[Part]
    joined: Callable[[list[Any]], T]
    kept: bool = True


def whole(what: str, call: Call) -> Computation[Any]:
    """A computation that cannot be divided."""
    return Computation(what, [Part(what, 1, lambda: call)], lambda results: results[0])


def in_blocks(
    what: str,
    ids: Tensor,
    most: int,
    call: Callable[[Tensor], Call],
    joined: Callable[[list[Any]], T],
    *,
    bar: str | None = None,
    kept: bool = True,
) -> Computation[T]:
    """Of N rows, some at a time.

    Args:
        what: Its name.
        ids: Of the rows, (N,); one name may be of several sets of rows, of which none begins with the same.
        most: Rows of a block; all blocks are as large as each other, give or take a row.
        call: From positions of rows (n,) to what computes them.
        joined: What the blocks' results are together.
        bar: The name of its bar; its own by default.
        kept: Whether another start finds the parts.
    """
    count = math.ceil(len(ids) / most)
    size, larger = divmod(len(ids), count)
    edges = [k * size + min(k, larger) for k in range(count + 1)]
    names = [f"{what}, from row {first} on" for first in ids[edges[:-1]].tolist()]

    def made(first: int, last: int) -> Call:
        return call(torch.arange(first, last))

    parts = [
        Part(name, last - first, partial(made, first, last))
        for name, (first, last) in zip(names, pairwise(edges), strict=True)
    ]
    return Computation(bar or what, parts, joined, kept)


class Work:
    """Computes, shows how far it is, and leaves what is done for another start.

    Args:
        bar: Where to show it.
        pieces: What an earlier start has computed, and where this one leaves what it computes.
        workers: Who compute.
    """

    def __init__(self, bar: Progress, pieces: Pieces, workers: Workers) -> None:
        self._bar, self._pieces, self._workers = bar, pieces, workers
        self._tasks: dict[str, TaskID] = {}
        if len(pieces):
            print(f"going on with {len(pieces)} parts of the evaluation done by an earlier start", flush=True)

    def one(self, asked: Computation[T]) -> T:
        """The result of one computation."""
        return self.all([asked])[0]

    def all(self, asked: Sequence[Computation[T]]) -> list[T]:
        """The results of computations that do not depend on each other."""
        for each in asked:
            self._show(each)
        computation = {part.name: each for each in asked for part in each.parts}
        parts = {part.name: part for each in asked for part in each.parts}
        results = {name: self._pieces.found(name) for name in parts if name in self._pieces}
        for name in results:
            self._advance(computation[name], parts[name])
        for name, result in self._workers.compute((name, parts[name].made()) for name in parts if name not in results):
            results[name] = self._pieces.kept(name, result) if computation[name].kept else result
            self._advance(computation[name], parts[name])
        return [each.joined([results[part.name] for part in each.parts]) for each in asked]

    def in_order(self, asked: Computation[Any]) -> Iterator[Any]:
        """What the parts of a computation give, one after the other, for what is too large to be held or kept as a whole."""
        self._show(asked)
        results = self._workers.in_order((part.name, part.made()) for part in asked.parts)
        for part, result in zip(asked.parts, results, strict=True):
            self._advance(asked, part)
            yield result

    def _show(self, asked: Computation[Any]) -> None:
        size = sum(part.size for part in asked.parts)
        task = self._tasks.get(asked.bar)
        if task is None:
            self._tasks[asked.bar] = self._bar.add_task(asked.bar, total=size, note="")
        else:
            self._bar.update(task, total=(self._bar.tasks[task].total or 0) + size)

    def _advance(self, asked: Computation[Any], part: Part) -> None:
        self._bar.advance(self._tasks[asked.bar], part.size)
