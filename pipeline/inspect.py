"""Look at a file before anything runs: its rows, its columns, what is odd in them, and what to put into params.yaml."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.base.command import command
from pipeline.base.errors import InputError
from pipeline.base.files import to_yaml
from pipeline.dvc.formats import untracked_note
from pipeline.params.data import LAYOUTS, Data, PrepareParams
from pipeline.params.file import PARAMS_FILE, load, read
from pipeline.params.model import ByKind
from pipeline.reading.columns.facts import Facts
from pipeline.reading.columns.guess import Guess, kinds_of
from pipeline.reading.columns.kept import KeptBlocks
from pipeline.reading.columns.oddities import Copies, Extremes, Suspicion, odd_values, suspicions
from pipeline.reading.columns.passes import over, surveyed
from pipeline.reading.formats import format_of, is_outside, read_blocks, reader_of, unread
from pipeline.reading.formats.text import Text, sniffed
from pipeline.tables.kinds import KINDS
from pipeline.tables.statistics import summed

MOST_COLUMNS = 100
OPTIONS = (
    "key",
    "layout",
    "delimiter",
    "decimal",
    "thousands",
    "signs",
    "missing",
)  # of the command line, which are keys of data
SPELLING = ("decimal", "thousands", "signs")
SHARED = (*OPTIONS, "header", "exclude", "columns")  # keys of data that say how a file is read
MANY_ZEROS = 0.5  # share of the rows
GREY = 255
ARRAY = ".npy"  # format of what has no names for its columns


def main(arguments: argparse.Namespace) -> None:
    """Print what would be read."""
    data = _data(arguments)
    if issubclass(reader_of(Path(data.path)), Text):
        data = sniffed(Path(data.path), data)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        inspection = inspected(data, KeptBlocks(Path(folder)))
    if spelling := {name: value for name, value in inspection.proposed.items() if name in SPELLING}:
        data = data.model_copy(update=spelling)  # what is said of the columns is to be true of what is pasted
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            inspection = inspected(data, KeptBlocks(Path(folder)))
    show(inspection, data)


def _data(arguments: argparse.Namespace) -> Data:
    """What params.yaml says of the file, if it is its data, and what the command line says."""
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) not in (None, [])}
    given |= {"header": False} if arguments.no_header else {}
    path = str(arguments.file)
    try:
        known = load(read(), PrepareParams).data
    except InputError:
        known = None
    if known is None or Path(known.path) != Path(path) or known.files is not None:
        return Data.model_validate({"path": path, "fractions": {"train": 0.7, "valid": 0.15, "test": 0.15}, **given})
    print(f"as {PARAMS_FILE} says of it, whose data this is\n")
    shared = known.model_dump(include=set(SHARED), exclude_none=True)
    return Data.model_validate({**shared, "fractions": known.fractions.model_dump(), **given, "path": path})


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    Attributes:
        facts: Of its columns.
        kinds: What they would be taken for, and why.
        extremes: Of the columns of numbers, by name.
        copies: Pairs of columns that say the same.
        suspected: What may have been meant otherwise.
    """

    facts: list[Facts]
    kinds: dict[str, Guess]
    extremes: dict[str, Extremes]
    copies: list[tuple[str, str]]
    suspected: list[Suspicion]

    @property
    def proposed(self) -> dict[str, Any]:
        """The params of what may have been meant otherwise: lists and mappings of all columns, of others the most frequent."""
        made: dict[str, Any] = {}
        for name in sorted({name for suspicion in self.suspected for name in suspicion.params}):
            values = [suspicion.params[name] for suspicion in self.suspected if name in suspicion.params]
            if isinstance(values[0], dict):
                made[name] = {key: value for part in values for key, value in part.items()}
            elif isinstance(values[0], list):
                made[name] = list(dict.fromkeys(item for part in values for item in part))
            else:
                made[name] = max(values, key=values.count)
        return made

    @property
    def is_grey(self) -> bool:
        """Whether the columns may be the pixels of square images."""
        ranges = [column.numbers.range for column in self.facts if column.is_number and column.numbers.whole]
        width = isqrt(len(self.facts))
        square = width > 1 and width * width == len(self.facts) == len(ranges)
        return square and min(ends.least for ends in ranges) >= 0 and 1 < max(ends.greatest for ends in ranges) <= GREY

    @property
    def left_out(self) -> dict[str, str]:
        """Columns that say the same as an earlier one, and which."""
        return {copy: first for first, copy in reversed(self.copies)}


def inspected(data: Data, blocks: KeptBlocks) -> Inspection:
    """Read a file and look at its columns.

    Raises:
        InputError: If it cannot be read.
    """
    table = surveyed(read_blocks(data), data, blocks)
    numbers = [place for place, column in enumerate(table.facts) if column.is_number and column.observed]
    copies = Copies(table.facts if format_of(data) != ARRAY else [])

    def look(block: Any) -> list[Extremes]:
        copies.add(block)
        return [Extremes.of(block.numbers(place), table.facts[place].numbers.range) for place in numbers]

    ends = summed(over(blocks, "looking for odd values", look))
    extremes = {table.facts[place].name: extreme for place, extreme in zip(numbers, ends, strict=True)}
    kinds = kinds_of(table.facts, data)
    return Inspection(table.facts, kinds, extremes, copies.names, list(suspicions(table.facts, kinds, data)))


def show(inspection: Inspection, data: Data) -> None:
    """Print what was found in a file, and what to put into params.yaml."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 170)
    facts, rows = inspection.facts, inspection.facts[0].rows
    name = reader_of(Path(data.path)).__name__
    console.print(f"[bold]{escape(data.path)}[/bold]: {name}, {rows:,} rows, {len(facts)} columns", end="\n\n")
    if inspection.is_grey and format_of(data) == ARRAY:
        width, greatest = isqrt(len(facts)), max(column.numbers.range.greatest for column in facts)
        console.print(f"whole numbers from 0 to {greatest:g}: maybe grey images of {width} x {width} pixels")
    else:
        console.print(_table(inspection))
    print("".join(f"note: {note}\n" for note in unread(data)), end="")
    print("\nto paste into params.yaml, in place of these keys:\n")
    print(to_yaml(snippet(inspection, data), in_order=True, compact=True).decode())
    if is_outside(Path(data.path)):
        print("the file lies outside the repository: copy it into data/raw/, `dvc add` it if it is large, and say so in path")
    elif (note := untracked_note(Path(data.path))) is not None:
        print(note)
    print("then `dvc repro`; docs/data.md says what else can be declared")


def _table(inspection: Inspection) -> Table:
    rows = inspection.facts[0].rows
    table = Table(title="columns", title_justify="left")
    for heading in ("column", "kind", "because", "values"):
        table.add_column(heading)
    table.add_column("missing", justify="right")
    for heading in ("likelihood", "look at"):
        table.add_column(heading)
    for column in inspection.facts[:MOST_COLUMNS]:
        kind, why = inspection.kinds[column.name]
        said = ("left out", f"{kind}: {why}")
        likelihood = ""
        if kind in KINDS:
            said, (likelihood, transform) = (kind, why), _suggested(column, inspection)
            likelihood += f", transform {transform}" if transform else ""
        missing = f"{column.missing / rows:.1%}" if column.missing else ""
        odd = "\n".join(_odd(column, inspection))
        table.add_row(*map(escape, (column.name, *said, _values(column), missing, likelihood, odd)))
    if len(inspection.facts) > MOST_COLUMNS:
        table.add_row(f"and {len(inspection.facts) - MOST_COLUMNS} more", *[""] * 6)
    return table


def _values(column: Facts) -> str:
    if column.is_number and column.observed:
        return f"{column.numbers.range.least:g} to {column.numbers.range.greatest:g}"
    levels = sorted(column.levels or ())
    return ", ".join(levels[:4]) + (f", ... ({len(levels)})" if len(levels) > 4 else "")


def _odd(column: Facts, inspection: Inspection) -> Iterator[str]:
    if column.name in inspection.left_out:
        yield f"says the same as {inspection.left_out[column.name]}"
    yield from (what for name, what, _ in inspection.suspected if name == column.name)
    if column.name in inspection.extremes and inspection.kinds[column.name][0] != "identifier":
        yield from odd_values(column, inspection.extremes[column.name])


def _suggested(of: Facts, found: Inspection) -> tuple[str, str | None]:
    kind = found.kinds[of.name][0]
    default = ByKind.model_validate({"name": "mixed"}).model_dump()[kind]["name"]
    if not of.is_number or kind not in ("continuous", "count"):
        return default, None
    ends, extremes = of.numbers.range, found.extremes[of.name]
    if kind == "count":
        zeros = extremes.least / of.observed if ends.least == 0 else 0.0
        return ("zero_inflated_negative_binomial" if zeros > MANY_ZEROS else default), None
    if ends.least >= 0 and ends.greatest <= 1:
        return ("beta" if ends.least > 0 and ends.greatest < 1 else "zero_one_inflated_beta"), "none"
    mean, between = extremes.moments.mean, extremes.between
    skewed = ends.least > 0 and extremes.moments.count and between.greatest - mean > 3 * (mean - between.least)
    return default, "log" if skewed else None


def snippet(found: Inspection, data: Data) -> dict[str, Any]:
    """The params that differ from what a table without surprises needs."""
    given = data.model_dump(include=set(SHARED), exclude_defaults=True)
    exclude = dict.fromkeys([*data.exclude, *found.left_out, *found.proposed.get("exclude", ())])
    section: dict[str, Any] = {**given, "path": data.path, "exclude": list(exclude), "missing": list(data.missing)}
    section |= {} if data.header else {"header": False}
    if found.is_grey and format_of(data) == ARRAY:
        width = isqrt(len(found.facts))
        section |= {"shape": [width, width], "units": "intensity", "dequantize": None, "binarize": "dynamic", "scale": "none"}
        return {"data": section, "model": {"likelihood": {"name": "bernoulli"}}}
    chosen = {of.name: _suggested(of, found) for of in found.facts if found.kinds[of.name][0] in KINDS}
    kept = {name: of for name, of in chosen.items() if name not in exclude}
    columns = {name: dict(options) for name, options in section.get("columns", {}).items()}
    for name in (of.name for of in found.facts if of.name not in exclude):
        transform = kept[name][1] if name in kept else None
        more = ({"transform": transform} if transform else {}) | found.proposed.get("columns", {}).get(name, {})
        if more:
            columns[name] = columns.get(name, {}) | more
    section |= {"columns": columns, "shape": None, "units": "units of the data", "dequantize": None, "binarize": None}
    defaults = ByKind.model_validate({"name": "mixed"}).model_dump()
    others = {name: {"name": of} for name, (of, _) in kept.items() if of != defaults[found.kinds[name][0]]["name"]}
    likelihood = {"name": "mixed", **({"columns": others} if others else {})}
    return {"data": section, "model": {"likelihood": likelihood}}


def _code(text: str) -> str | float:
    try:
        return int(text) if float(text).is_integer() else float(text)
    except ValueError:
        return text


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("file", type=Path, help="a file or folder, as data.path")
    made.add_argument("--key", help="the array to take, where a file has several (data.key)")
    made.add_argument("--layout", choices=LAYOUTS, help="the axes of an array of pictures (data.layout)")
    made.add_argument("--delimiter", help="between the fields of a text (data.delimiter)")
    made.add_argument("--decimal", help="before the fraction of a number (data.decimal)")
    made.add_argument("--thousands", help="between groups of three digits (data.thousands)")
    made.add_argument("--signs", nargs="*", default=[], help="around numbers, no part of them, such as %% (data.signs)")
    made.add_argument("--no-header", action="store_true", help="the first line has no names (data.header: false)")
    made.add_argument("--missing", nargs="*", default=[], type=_code, help="values that stand for no value (data.missing)")
    return made


if __name__ == "__main__":
    sys.exit(command("inspect", parser(), main))
