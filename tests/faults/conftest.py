"""A small experiment to hurt, and the table of what it has survived."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.clones import on_server
from tests.faults.laboratory import QUICK, SMALL, Fault, Laboratory, QuickLaboratory, Trial, environment

COLUMNS = ("survived", "bytes", "run")
HEADINGS = ("fault", "times injected", "survived", "bytes equal", "runs correct", "seconds each")


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """The experiment, long enough to be hit anywhere. Each test process has its own, which it times under its own load."""
    return Laboratory(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> QuickLaboratory:
    """The same, as short as can be."""
    return QuickLaboratory(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    """What tells stages where the store is: a file by default; a server with ``STORE=postgresql``."""
    if os.environ.get("STORE", "sqlite") == "sqlite":
        return {}
    return on_server(request.getfixturevalue("tracking_uri"))


@pytest.fixture
def faults(record_property: Callable[[str, object], None]) -> Iterator[list[Fault]]:
    """Those that a test injects, for the table."""
    injected: list[Fault] = []
    yield injected
    record_property("faults", [asdict(fault) for fault in injected])


@pytest.fixture
def trial(tmp_path: Path, store: dict[str, str], faults: list[Fault]) -> Iterator[Callable[[Laboratory], Trial]]:
    """Makes trials."""
    made: list[Trial] = []

    def make(laboratory: Laboratory) -> Trial:
        made.append(Trial(laboratory, tmp_path / f"trial{len(made)}", tmp_path, environment(**store)))
        return made[-1]

    yield make
    for each in made:
        each.end()
        faults += each.faults


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, from what each test has recorded."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind if isinstance(report, pytest.TestReport)]
    found = [value for report in reports if report.when == "teardown" for _, value in report.user_properties]
    injected = [Fault(**fault) for value in found if isinstance(value, list) for fault in value]
    if injected:
        terminalreporter.section("faults")
        for line in table(injected):
            terminalreporter.write_line(line)


def table(faults: Sequence[Fault]) -> list[str]:
    """A line for each fault, and one for all."""
    names = sorted({fault.name for fault in faults})
    rows = [HEADINGS, *(_row(name, [fault for fault in faults if fault.name == name]) for name in names), _row("all", faults)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _row(name: str, faults: Sequence[Fault]) -> tuple[str, ...]:
    counts = [len(faults), *(sum(getattr(fault, column) for fault in faults) for column in COLUMNS)]
    return name, *map(str, counts), f"{sum(fault.seconds for fault in faults) / len(faults):.0f}"
