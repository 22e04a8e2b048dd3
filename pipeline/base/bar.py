"""The project's progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar(done: ProgressColumn | None = None, *, transient: bool = False) -> Progress:
    """What is done, a bar, how much (a count by default), time elapsed, time left, a note; a ``transient`` one vanishes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        done or MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        transient=transient,
        disable=transient and not sys.stdout.isatty(),
    )


@contextmanager
def advancing(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar for one piece of work, to be called with how much more is done."""
    with progress_bar(TaskProgressColumn()) as bar:
        task = bar.add_task(f"{what:33}", total=total, note="")  # as wide as the estimators' names
        yield lambda count: bar.advance(task, count)
