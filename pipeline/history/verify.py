"""Evaluate a restored state again, with its own code, and compare every metric with what it held and with its run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import RESULTS
from pipeline.experiment.saved import FRESH
from pipeline.tracking.contents import Point, points_of

EVALUATED = RESULTS / "evaluate"


def verify(folder: Path, points: frozenset[Point]) -> str:
    """Evaluate again in the folder, which is left as it was.

    Args:
        folder: A restored state.
        points: All metrics of its MLflow run; empty if there is none.

    Returns:
        That all are equal, and how many.

    Raises:
        InputError: If a metric differs, or the evaluation fails.
    """
    then = _metrics(folder)
    with _aside(folder):
        evaluate(folder)
        now = _metrics(folder)
        try:
            again = points_of(("train", "evaluate"), lambda path: (folder / path).read_bytes()) if points else points
        except (KeyError, OSError) as error:
            raise InputError(f"its MLflow metrics cannot be compared, its files are of another version: {error}") from error
    # a version may show metrics that another does not
    names = {name for name, _, _ in points} & {name for name, _, _ in again}
    points, again = (frozenset(point for point in shown if point[0] in names) for shown in (points, again))
    different = [*_differences(then, now), *_differences(_by_name(points), _by_name(again))]
    if different:
        raise InputError(
            f"{len(different)} of {len(then) + len(points)} metrics differ from those of the run:\n"
            + "\n".join(f"  {line}" for line in different)
        )
    tests = sum(name.startswith("test/") for name, _, _ in points)
    run = (
        f"all {len(points)} of its MLflow run ({tests} test/* values)" if points else "there is no MLflow run to compare with"
    )
    return f"verified: evaluated again, equal are all {len(then)} values of {EVALUATED}/metrics.json; {run}"


def _metrics(folder: Path) -> dict[str, Any]:
    return dict(_leaves(json.loads((folder / EVALUATED / "metrics.json").read_text(encoding="utf-8"))))


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    if not pairs:
        yield path, content
    for key, value in pairs:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _by_name(points: frozenset[Point]) -> dict[str, float]:
    """The values of points by their name and step, as a message calls them."""
    return {f"MLflow's {name} at step {step}": value for name, value, step in sorted(points)}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*then, *now}):
        if name not in then or name not in now or then[name] != now[name]:
            yield f"{name}: {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"


@contextmanager
def _aside(folder: Path) -> Iterator[None]:
    """Put the restored results aside meanwhile, so that they come back as they were."""
    aside = folder / ".evidence" / "restored"
    aside.parent.mkdir(exist_ok=True)
    os.replace(folder / EVALUATED, aside)
    try:
        yield
    finally:
        shutil.rmtree(folder / EVALUATED, ignore_errors=True)
        os.replace(aside, folder / EVALUATED)


def evaluate(folder: Path) -> None:
    """Evaluate a restored state by its own code, from the beginning and without a view.

    Raises:
        InputError: If that fails.
    """
    settings = {FRESH: "1", "EVIDENCE_TRACKING": "off", "DVC_ROOT": str(folder)}
    done = subprocess.run([sys.executable, "-m", "pipeline.evaluate"], cwd=folder, env=os.environ | settings, check=False)
    if done.returncode:
        raise InputError(f"the evaluation in {folder} failed, with exit status {done.returncode} and the message above")
