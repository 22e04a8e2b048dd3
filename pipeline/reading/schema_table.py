"""The schema as a table for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.tables.schema import Schema

MOST_COLUMNS = 50


def show(schema: Schema, why: Mapping[str, str]) -> None:
    """Print a line for each column, at most 50, and for each that is left out.

    Args:
        schema: What is known of the data.
        why: What each column was taken for, in words, by name.
    """
    table = Table(title="columns; data.columns in params.yaml overrides a kind", title_justify="left")
    for heading in ("column", "kind", "because", "values", "prepared by"):
        table.add_column(heading)
    table.add_column("missing", justify="right")
    rows = sum(schema.rows.values())
    for column in schema.columns[:MOST_COLUMNS]:
        missing = f"{column.missing / rows:.1%}" if column.missing else ""
        values = "{:g} to {:g}".format(*column.range)
        if column.categories:
            more = f", ... ({len(column.categories)})" if len(column.categories) > 4 else ""
            values = ", ".join(column.categories[:4]) + more
        noise = f"noise of {column.step:g}" if column.step else ""
        transform = column.transform.name if column.transform.name != "none" else ""
        prepared = ", ".join(filter(None, (noise, transform)))
        table.add_row(*map(escape, (column.name, column.kind, why[column.name], values, prepared, missing)))
    if len(schema.columns) > MOST_COLUMNS:
        table.add_row(f"and {len(schema.columns) - MOST_COLUMNS} more", "", "", "", "", "")
    for name, reason in schema.left_out.items():
        table.add_row(escape(name), "left out", escape(reason), "", "", "", style="dim")
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)
