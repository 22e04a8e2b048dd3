"""The report of a benchmark: tables for people, one flat JSON object for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass
class Report:
    """Tables, printed as they are measured, and the numbers for the JSON file."""

    console: Console = field(default_factory=Console)
    numbers: dict[str, float] = field(default_factory=dict)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print the table of a topic; the first column is text, the others are figures."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column, justify="right" if table.columns else "left")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def say(self, line: str) -> None:
        """Print what a table leaves open."""
        self.console.print(line, end="\n\n")

    def add(self, name: str, value: float) -> None:
        """Keep a number for the JSON file."""
        self.numbers[name] = value

    def write(self, path: Path) -> None:
        """Write the numbers as one flat JSON object."""
        path.write_text(json.dumps(self.numbers, indent=2) + "\n")


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser of the options that every benchmark has; ``description`` is its docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rough answer within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as one flat object")
    return parser
