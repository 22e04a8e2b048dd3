"""The project's progress bar."""

from __future__ import annotations

import sys

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
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
