"""The kinds of columns: what is inferred, what may be declared, what is refused, and that values come back as they were."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.params.whole import load_params
from pipeline.reading.columns.blocks import survey
from pipeline.reading.columns.guess import guess
from pipeline.stages import prepare
from pipeline.tables.schema import SPLITS, Column, Reading, load_index, load_schema, load_split
from tests.workspace import mixed_table, write_params, write_table

ROWS = 40
RNG = np.random.default_rng(0)
GUESSES: dict[str, tuple[Any, str, str]] = {
    "fractions": (RNG.normal(size=ROWS), "continuous", "numbers with fractions"),
    "negative": (RNG.integers(-5, 5, ROWS), "continuous", "whole numbers, some below 0"),
    "counts": (RNG.poisson(2, ROWS), "count", "whole numbers from 0 on"),
    "many whole numbers": (RNG.integers(100, 200, ROWS), "count", "whole numbers from 0 on"),
    "zeros and ones": (RNG.integers(0, 2, ROWS), "binary", "zeros and ones"),
    "booleans": (RNG.random(ROWS) < 0.5, "binary", "zeros and ones"),
    "texts of booleans": (["True", "False"] * 20, "binary", "two texts"),
    "two texts": (["a", "b"] * 20, "binary", "two texts"),
    "classes": (["a", "b", "c", "d"] * 10, "categorical", "4 different texts"),
    "levels": ([1, 2, 3, 2] * 10, "ordinal", "3 different whole numbers"),
    "always": ([7] * ROWS, "constant", "always 7"),
    "codes": (["01", "1", "02", "002"] * 10, "categorical", "4 different texts"),
    "large numbers": (
        np.arange(ROWS) * 700 + 2**60,
        "identifier",
        "whole numbers that are too large to compute with",
    ),
    "always a text": (["x"] * ROWS, "constant", "always 'x'"),
    "nothing": ([None] * ROWS, "constant", "no value"),
    "numbered": (np.arange(ROWS) + 3, "identifier", "numbers its rows one after another"),
    "names": ([f"name {i}" for i in range(ROWS)], "identifier", "40 different texts in 40 rows"),
    "days": (pd.date_range("2020", periods=ROWS).strftime("%Y-%m-%d"), "date", "dates"),
    "moments": (pd.date_range("2020", periods=ROWS), "date", "dates"),
    "slashed days": (pd.date_range("2020", periods=ROWS).strftime("%Y/%m/%d"), "date", "dates"),
    "short days": (pd.date_range("2020", periods=ROWS).strftime("%d-%b-%y"), "date", "dates"),
    "long days": (pd.date_range("2020", periods=ROWS).strftime("%d-%b-%Y"), "date", "dates"),
    "short American days": (pd.date_range("2020", periods=ROWS).strftime("%m/%d/%y"), "date", "dates"),
    "German days": (pd.date_range("2020", periods=ROWS).strftime("%d.%m.%Y"), "date", "dates"),
}


@pytest.mark.parametrize("case", GUESSES)
@pytest.mark.parametrize("missing", [False, True])
def test_kinds_are_inferred(case: str, missing: bool) -> None:
    values, kind, why = GUESSES[case]
    column = pd.Series(values, name="a", dtype=object if missing else None)
    if missing and case != "numbered":
        column[[3, 4]] = None
        why = why.replace("40 different texts in 40 rows", "38 different texts in 38 rows")
    if missing:  # as a CSV file has it
        column = column.map(lambda value: int(value) if isinstance(value, bool) else value).astype(str).mask(column.isna(), "")
    for size in (ROWS, 7):
        blocks = [survey(column[first : first + size], first, Reading())[1] for first in range(0, ROWS, size)]
        assert guess(reduce(add, blocks)) == (kind, why)


def prepared(workspace: Path, frame: pd.DataFrame, **changes: Any) -> dict[str, Column]:
    write_table(workspace, frame)
    write_params(workspace, **changes)
    prepare.main()
    return {column.name: column for column in load_schema().columns}


def test_a_table_comes_back_as_it_was(workspace: Path) -> None:
    """Values as in the file, of the same types, whatever was done to them; missing ones missing."""
    frame = mixed_table(gaps=True)
    columns = prepared(
        workspace, frame, **{"data.scale": "quantile", "data.columns": {"height": {"transform": "standardize"}}}
    )
    assert [column.kind for column in columns.values()] == [
        "continuous",
        "count",
        "binary",
        "binary",
        "categorical",
        "ordinal",
    ]
    for split in SPLITS:
        expected = frame.iloc[load_index(split)].reset_index(drop=True)
        back = load_schema().table(np.array(load_split(split)))
        pd.testing.assert_frame_equal(back.astype(expected.dtypes), expected, atol=1e-6)


def test_declared_kinds_go_before_guesses(workspace: Path) -> None:
    declared = {"grade": {"kind": "ordinal", "order": [3, 2, 1]}, "visits": "continuous", "smokes": "categorical"}
    columns = prepared(workspace, mixed_table(), **{"data.columns": {**declared, "colour": "identifier"}})
    assert "colour" not in columns
    assert load_schema().left_out == {"colour": "declared"}
    assert columns["grade"].categories == ["3", "2", "1"]
    assert columns["visits"].kind == "continuous"
    assert columns["smokes"].categories == ["0", "1"]


def test_options_imply_the_kind_that_they_are_for(workspace: Path) -> None:
    """An order of numbers is one of numbers, however they are written."""
    declared = {"visits": {"transform": "none"}, "smokes": {"order": [1.0, 0]}, "grade": {"other": True}}
    columns = prepared(workspace, mixed_table(), **{"data.columns": declared})
    assert (columns["visits"].kind, columns["smokes"].categories) == ("continuous", ["1", "0"])
    assert columns["smokes"].kind == "ordinal"
    assert columns["grade"].categories == ["1", "2", "3", "other"]
    assert load_schema().table(np.array([[0, 1, 1, 0, 2, 3]]))["grade"].tolist() == ["other"]


def test_parquet_types_that_hold_numbers_and_dates(workspace: Path) -> None:
    frame = pd.DataFrame(
        {
            "day": [date(2020, 1, 1 + i % 9) for i in range(60)],
            "price": [Decimal(i * i % 7) / 4 for i in range(60)],
            "agreed": pd.array([True, False, None] * 20, dtype="boolean"),
            "town": pd.Categorical(["a", "b", "c"] * 20),
        }
    )
    write_table(workspace, frame, "table.parquet")
    write_params(workspace, **{"data.path": "data/raw/table.parquet"})
    prepare.main()
    assert load_schema().left_out == {"day": "dates"}
    assert [column.kind for column in load_schema().columns] == ["continuous", "binary", "categorical"]
    assert load_schema().columns[1].missing == 20


def test_names_are_printed_as_they_are(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(workspace, mixed_table().rename(columns={"height": "rate [/min]", "sex": "[bold]"}))
    said = capsys.readouterr().out
    assert "rate [/min]" in said
    assert "[bold]" in said


def test_codes_are_missing_values(workspace: Path) -> None:
    frame = mixed_table()
    frame.loc[[1, 2, 5], "height"] = -999
    frame.loc[[1, 7], "colour"] = "?"
    columns = prepared(workspace, frame, **{"data.missing": [-999, "?"]})
    assert {name: column.missing for name, column in columns.items() if column.missing} == {"height": 3, "colour": 2}
    assert columns["colour"].categories == ["blue", "green", "red"]
    assert columns["height"].range[0] > -999


def test_rare_categories_may_be_declared_as_other(workspace: Path) -> None:
    frame = mixed_table()
    prepared(workspace, frame)
    row = int(load_index("test")[0])
    frame.loc[row, "colour"] = "violet"
    message = (
        rf"column 'colour', row {row + 1}: 'violet' is none of blue, green, red, the categories of the training rows; mend"
    )
    with pytest.raises(InputError, match=message):
        prepared(workspace, frame)
    columns = prepared(workspace, frame, **{"data.columns": {"colour": {"other": True}}})
    assert columns["colour"].categories == ["blue", "green", "red", "other"]
    assert load_schema().table(np.array(load_split("test"))).loc[0, "colour"] == "other"


def test_columns_are_standardised_over_what_is_observed(workspace: Path) -> None:
    prepared(workspace, mixed_table(gaps=True))
    y = np.array(load_split("train"))[:, 0]
    assert np.isnan(y).any()
    assert np.nanmean(y) == pytest.approx(0, abs=1e-6)
    assert np.nanstd(y) == pytest.approx(1, abs=1e-6)


def test_the_schema_is_printed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(workspace, mixed_table(gaps=True).assign(id=range(60)))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert ["sex", "binary", "two texts", "female, male", "", "13.3%"] in lines
    assert ["id", "left out", "numbers its rows one after another", "", "", ""] in lines


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "negative counts": (
        {"visits": -1},
        {"visits": "count"},
        "column 'visits', row 6: a count must be a whole number from 0 to",
    ),
    "half a count": (
        {"visits": 1.5},
        {"visits": "count"},
        "a count must be a whole number from 0 .* got 1.5; mend the cell, or set",
    ),
    "texts as numbers": (
        {},
        {"colour": "continuous"},
        "data.columns.colour: continuous needs numbers, .* texts such as '",
    ),
    "no order": ({}, {"colour": "ordinal"}, r"ordinal texts need their order, .* order: \[blue, green, red\]"),
    "not in the order": (
        {},
        {"colour": {"kind": "ordinal", "order": ["blue", "red"]}},
        "'green' is none of blue, red, the categories of data.columns",
    ),
    "three are not two": (
        {},
        {"colour": "binary"},
        "column 'colour' is binary, but the training rows have 3 different values",
    ),
    "one value": (
        {"smokes": (1, slice(None))},
        {"smokes": "ordinal"},
        "column 'smokes' has just one value",
    ),
    "unknown column": ({}, {"size": "count"}, r"data.columns: no column 'size' in .*; its columns are \[height, visits"),
    "empty column": (
        {"visits": (np.nan, slice(None))},
        {"visits": "count"},
        "column 'visits' has no value in the training rows",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns_are_named(case: str, workspace: Path) -> None:
    cells, columns, message = BAD[case]
    frame = mixed_table().astype({"visits": float})
    for name, value in cells.items():
        value, rows = value if isinstance(value, tuple) else (value, 5)
        frame.loc[rows, name] = value
    with pytest.raises(InputError, match=message):
        prepared(workspace, frame, **{"data.columns": columns})
    assert not (workspace / "data/prepared").exists()


def test_nothing_left_is_refused(workspace: Path) -> None:
    with pytest.raises(InputError, match="no column is left, as a: numbers its rows one after another; declare"):
        prepared(workspace, pd.DataFrame({"a": range(60)}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": "nominal"}, "data.columns.a.kind: "),
        (
            {"a": {"kind": "count", "transform": "log"}},
            "data.columns.a: transform and dequantize is for columns that",
        ),
        ({"a": {"kind": "ordinal", "other": True}}, "data.columns.a: other is for columns that are categorical; this one is"),
        (
            {"a": {"kind": "continuous", "order": [1, 2]}},
            "data.columns.a: order is for columns that are ordinal or",
        ),
        ({"a": {"order": [1, "1"]}}, "data.columns.a: order must name each value once"),
        ({"a": {"scale": "log"}}, "data.columns.a.scale: unknown key"),
    ],
)
def test_bad_declarations_are_named(columns: dict[str, Any], message: str, workspace: Path) -> None:
    write_params(workspace, **{"data.columns": columns})
    with pytest.raises(InputError, match=message):
        load_params()
