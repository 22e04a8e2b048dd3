"""Texts of other people's tools: every cell is where it stands, and numbers are read as they are written, or it is said."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import inspect
from pipeline.base.errors import InputError
from pipeline.params.data import Data, Fractions
from pipeline.reading.columns.blocks import Cells, survey
from pipeline.reading.columns.guess import guess
from pipeline.reading.columns.looks import likely
from pipeline.reading.formats.text import sniffed
from pipeline.stages import prepare
from pipeline.tables.schema import Reading, load_schema
from tests.workspace import read_table, write_params, write_table

FRACTIONS = Fractions(train=0.7, valid=0.15, test=0.15)
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def read(path: Path, content: str | bytes, **options: Any) -> pd.DataFrame:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(Data(path=str(path), fractions=FRACTIONS, **options))[0]


def by_csv(content: str) -> list[list[str]]:
    """The rows of a text by Python's csv, which is given all of it at once."""
    lines = io.StringIO(content, newline="")
    return [row for row in csv.reader(lines, skipinitialspace=True, strict=True) if row]


MOVED = {
    "return": ("x,y\n1,2\n\r,3\n4,5\n", [["1", "2"], ["", "3"], ["4", "5"]]),
    "lost row": ("x,y\n\r,\n,1\n", [["", ""], ["", "1"]]),
    "two returns": ("x,y\r\r\n1,2\r\r\n3,4\r\r\n", [["1", "2"], ["3", "4"]]),
    "newline, return": ("x,y\n\r1,2\n\r3,4\n\r", [["1", "2"], ["3", "4"]]),
    "return, newline, return": ("x,y\r\n\r1,2\r\n\r3,4", [["1", "2"], ["3", "4"]]),
    "returns": ("x,y\r1,2\r3,4\r", [["1", "2"], ["3", "4"]]),
    "one column, spaces": ("x\n1\n \n2\n", [["1"], [""], ["2"]]),
    "one column, tab": ("x\n1\n\t\n2\n", [["1"], ["\t"], ["2"]]),
    "one column, quotes": ('x\n1\n""\n2\n\n', [["1"], [""], ["2"]]),
    "spaces after commas": ('x, "a, b"\n1, "2, 3"\n', [["1", "2, 3"]]),
}


@pytest.mark.parametrize("case", MOVED)
def test_cells_stay_where_they_stand(case: str, tmp_path: Path) -> None:
    content, rows = MOVED[case]
    assert read(tmp_path / "a.csv", content).to_numpy().tolist() == rows


TEXTS = st.text(st.sampled_from('12xé,"\r\n\t \0;'), max_size=24)


def check_against_csv(path: Path, content: str) -> None:
    """The same cells, rows and row numbers; or a refusal that names the line."""
    try:
        expected = by_csv("x,y\n" + content)[1:]
        whole = all(len(row) == 2 for row in expected) and bool(expected)
    except csv.Error:
        whole, expected = False, []
    if whole:
        assert read(path, "x,y\n" + content).to_numpy().tolist() == expected
        return
    with pytest.raises(InputError, match=r", line \d+|has no rows"):
        read(path, "x,y\n" + content)


@settings(max_examples=300, **QUIET)
@given(TEXTS)
def test_any_text_is_read_as_by_csv(tmp_path: Path, content: str) -> None:
    check_against_csv(tmp_path / "a.csv", content)


@pytest.mark.slow
@settings(max_examples=10_000, **QUIET)
@given(TEXTS)
def test_ten_thousand_texts_are_read_as_by_csv(tmp_path: Path, content: str) -> None:
    check_against_csv(tmp_path / "a.csv", content)


def test_rows_keep_their_numbers_over_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 7)
    monkeypatch.setattr("pipeline.reading.formats.text.LEAST_ROWS", 3)
    monkeypatch.setattr("pipeline.reading.formats.text.AT_A_TIME", 6)
    rows = [[str(i), "" if i % 5 else "a\nb"] for i in range(100)]
    content = "x,y\n" + "\n\n".join(f'{x},"{y}"' for x, y in rows)
    assert read(tmp_path / "a.csv", content).to_numpy().tolist() == rows


REFUSED = {
    "empty line": ("x\n1\n\n2\n", 'line 3: is empty; remove it, or write "" for a missing value', "x\n1\n2\n", {}),
    "open quote": (
        'x,y\n1,2\n"3,4\n5,6\n',
        "line 4: not valid CSV: unexpected end of data; look for a quote",
        "x,y\n3,4\n",
        {},
    ),
    "quote within": ('x,y\n"5"6",2\n', "line 2: not valid CSV: .* where it must be doubled", 'x,y\n"5""6",2\n', {}),
    "Excel": (
        "sep=;\nx;y\n1;2\n",
        r"'sep=;', is for Excel; remove it and set data.delimiter: ';'",
        "x;y\n1;2\n",
        {"delimiter": ";"},
    ),
    "JSON lines": ('{"x": 1, "y": 2}\n', "is JSON; write the table as Parquet or CSV", "x,y\n1,2\n", {}),
    "JSON": ('[\n{"x": 1, "y": 2}]\n', "is JSON; write the table as Parquet or CSV", "x,y\n1,2\n", {}),
    "semicolons": (
        "x;y\n1;2\n",
        "separated by ';', not by ','; set data.delimiter",
        "x;y\n1;2\n",
        {"delimiter": ";"},
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_read_once_it_is_mended(case: str, tmp_path: Path) -> None:
    content, message, mended, options = REFUSED[case]
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.csv", content)
    assert read(tmp_path / "a.csv", mended, **options).shape[1] == (1 if case == "empty line" else 2)


def test_white_space_may_separate(tmp_path: Path) -> None:
    """Aligned by spaces, or tabs, with a text in quotes."""
    content = '  name   x     y\n "a b"  1.5  -2\n  c    12.5   3 \n'
    assert read(tmp_path / "a.dat", content, delimiter="whitespace").to_numpy().tolist() == [
        ["a b", "1.5", "-2"],
        ["c", "12.5", "3"],
    ]
    assert read(tmp_path / "a.dat", "x \t y\n1\t \t2\n", delimiter="whitespace").to_numpy().tolist() == [["1", "2"]]
    with pytest.raises(InputError, match=r"has both tabs and quotes in a line; set data.delimiter"):
        read(tmp_path / "a.dat", '"x"\ty\n1\t2\n', delimiter="whitespace")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "whitespace"])
def test_the_separator_is_found(separator: str, tmp_path: Path) -> None:
    between = "   " if separator == "whitespace" else separator
    path = tmp_path / "a.txt"
    path.write_text(
        "".join(between.join(row) + "\n" for row in [["x", "y", "z"], *[["1.5", "a", str(i)] for i in range(300)]])
    )
    data = sniffed(path, Data.model_validate({"path": str(path), "fractions": FRACTIONS}))
    assert (data.delimiter or ",") == separator
    assert read_table(data)[0].shape == (300, 3)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_decimal_comma_is_no_separator(separator: str, tmp_path: Path) -> None:
    """Though it divides all lines into the same number of fields, where there is no header."""
    path = tmp_path / "a.txt"
    path.write_text("".join(f"0,{i:03}{separator}-1,{i:03}\n" for i in range(300)))
    data = sniffed(path, Data.model_validate({"path": str(path), "fractions": FRACTIONS, "header": False}))
    assert data.delimiter == separator
    path.write_text("".join(f"PC 16:0;{i % 7}:1,{i}\n" for i in range(300)))
    assert sniffed(path, data.model_copy(update={"delimiter": None})).delimiter is None


@pytest.mark.parametrize(
    ("given_", "taken"),
    [
        ({"delimiter": "\\t"}, {"delimiter": "\t"}),
        ({"exclude": [0, "a"]}, {"exclude": ["0", "a"]}),
        ({"missing": -999}, {"missing": [-999]}),
    ],
)
def test_params_are_taken_as_they_are_meant(given_: dict[str, Any], taken: dict[str, Any]) -> None:
    data = Data.model_validate({"path": "a.csv", "fractions": FRACTIONS, **given_})
    assert {name: getattr(data, name) for name in taken} == taken


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n"])
def test_separators_are_one_character(delimiter: str) -> None:
    with pytest.raises(ValueError, match=r"must be one character, such as ; or .*, or whitespace, any number of spaces"):
        Data.model_validate({"path": "a.csv", "fractions": FRACTIONS, "delimiter": delimiter})


NUMBERS = np.concatenate([np.random.default_rng(0).normal(size=30) * 1e5, np.random.default_rng(1).normal(size=30) * 10])


def written(x: float, decimal: str, thousands: str, before: str = "", behind: str = "") -> str:
    text = f"{abs(x):,.4f}".replace(",", "_").replace(".", decimal).replace("_", thousands)
    return ("\N{MINUS SIGN}" if x < 0 else "") + before + text + behind


SPELLINGS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "decimal comma": ((",", ""), {"decimal": ","}),
    "thousands": ((".", ","), {"thousands": ","}),
    "spaces": ((".", "\N{NO-BREAK SPACE}"), {"thousands": " "}),
    "apostrophes": ((".", "'"), {"thousands": "'"}),
    "German": ((",", "."), {"decimal": ",", "thousands": "."}),
    "French": ((",", "\N{NARROW NO-BREAK SPACE}"), {"decimal": ",", "thousands": " "}),
    "percent": ((".", "", "", "%"), {"signs": ["%"]}),
    "dollars": ((".", ",", "$"), {"thousands": ",", "signs": ["$"]}),
    "euros": ((",", ".", "", " €"), {"decimal": ",", "thousands": ".", "signs": ["€"]}),
    "minus": ((".", ""), {}),
    "brackets": ((".", ""), {"signs": ["()"]}),
    "dollars in brackets": ((".", ",", "$"), {"thousands": ",", "signs": ["$", "()"]}),
    "minus behind": ((".", ","), {"thousands": ",", "signs": ["-"]}),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_numbers_are_read_as_they_are_written_and_the_way_is_found(case: str) -> None:
    """Also a minus that is no hyphen; without the params they are texts, which look like numbers by these."""
    spelling, params = SPELLINGS[case]
    texts = [written(x, *spelling) for x in NUMBERS]
    for name, (before, behind) in {"()": "()", "-": ("", "-")}.items():
        if name in params.get("signs", ()):
            texts = [re.sub("^\N{MINUS SIGN}(.*)", rf"{before}\1{behind}", text) for text in texts]
    column = pd.Series(texts, name="x")
    cells, facts = survey(column, 0, Reading(**params))
    np.testing.assert_allclose(cells.numbers, NUMBERS.round(4))
    assert guess(facts)[0] == "continuous"
    _, undeclared = survey(column, 0, Reading())
    if params:
        assert undeclared.odd
        found = likely(undeclared.looks)
        assert found is not None
        assert found[0] == params
    else:
        assert not undeclared.odd


@settings(max_examples=200, **QUIET)
@given(
    st.lists(st.text(st.sampled_from("0123456789.,' -+e%"), max_size=9), min_size=1, max_size=5),
    st.sampled_from([(".", None), (",", None), (".", ","), (",", "."), (",", " "), (".", "'")]),
)
def test_a_text_is_a_number_by_one_rule(texts: list[str], points: tuple[str, str | None]) -> None:
    """What is taken for a number has its point once, and its thousands in threes; whatever other texts there are."""
    decimal, thousands = points
    reading = Reading(decimal=decimal, thousands=thousands)
    together = Cells.of(pd.Series(texts, name="x"), 0, reading).numbers
    alone = np.concatenate([Cells.of(pd.Series([text], name="x"), 0, reading).numbers for text in texts])
    np.testing.assert_array_equal(together, alone)
    for text, x in zip(texts, together, strict=True):
        if np.isfinite(x) and thousands is not None and thousands in text.strip():
            whole, _, fraction = text.strip().lstrip("+-").partition(decimal)
            assert all(len(group) == 3 for group in whole.split(thousands)[1:])
            assert thousands not in fraction
        if np.isfinite(x) and decimal == "," and thousands != ".":
            assert "." not in text


def prepared_notes(workspace: Path, content: str, **changes: Any) -> list[str]:
    path = workspace / "data/raw/table.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    write_params(workspace, **changes)
    prepare.main()
    return load_schema().notes


def rows_of(**columns: Any) -> str:
    return pd.DataFrame(columns).to_csv(index=False)


RNG = np.random.default_rng(0)
X = RNG.normal(size=60)
SUSPECTED: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "decimal comma": (
        rows_of(x=X, y=[written(x, ",", "") for x in X]),
        "column 'y': 60 of 60 texts, such as .* look like numbers: set data.decimal: ','",
        {"data.decimal": ",", "data.exclude": ["x"]},
        "y",
    ),
    "percent": (
        rows_of(x=X, y=[f"{x:.2f}%" for x in X]),
        r"column 'y': 60 of 60 texts, such as .* look like numbers: set data.signs: \['%'\]",
        {"data.signs": ["%"]},
        "y",
    ),
    "brackets": (
        rows_of(x=X, y=[f"({-x:.3f})" if x < 0 else f"{x:.3f}" for x in X - 2]),
        r"column 'y': \d+ of 60 texts, such as .* look like numbers: set data.signs: \['\(\)'\]",
        {"data.signs": ["()"], "data.exclude": ["x"]},
        "y",
    ),
    "points between thousands": (
        rows_of(x=X, y=[f"{i * 37 % 50 + 1}.{i * 7 % 900 + 100}" if i % 3 else str(i + 700) for i in range(60)]),
        "column 'y': all 40 numbers with a point have three digits .* set data.decimal: ',' and data.thousands: '.'",
        {"data.decimal": ",", "data.thousands": ".", "data.exclude": ["x"]},
        "y",
    ),
    "leading zeros": (
        rows_of(x=X, y=[f"{abs(x) * 100:08.3f}" for x in X]),
        r"column 'y': its numbers have leading zeros, such as '\d+.\d+', .* set data.columns.y: \{kind: continuous\}",
        {"data.columns": {"y": {"kind": "continuous"}}},
        "y",
    ),
    "row ids": (
        rows_of(x=X, patient_id=RNG.permutation(60) * 977 + 1000),
        "column 'patient_id': all its numbers differ, as if they named the rows: leave it out with data.exclude",
        {"data.exclude": ["patient_id"]},
        "",
    ),
    "numbers of rows": (
        rows_of(x=X, n=RNG.permutation(60)),
        "column 'n': all its numbers differ, as if they named the rows",
        {"data.exclude": ["n"]},
        "",
    ),
    "days": (
        rows_of(x=X, day=[20210101 + i % 28 for i in range(60)]),
        "column 'day': numbers such as 20210101 look like dates",
        {"data.exclude": ["day"]},
        "",
    ),
    "seconds": (
        rows_of(x=X, at=1609459200 + RNG.integers(0, 10**7, 60)),
        "column 'at': numbers such as 16[0-9]{8} look like times since 1970: leave it out with data.exclude",
        {"data.exclude": ["at"]},
        "",
    ),
    "milliseconds": (
        rows_of(x=X, at=1609459200000 + RNG.integers(0, 10**10, 60)),
        "column 'at': numbers such as 16[0-9]{11} look like times since 1970: leave it out with data.exclude",
        {"data.exclude": ["at"]},
        "",
    ),
    "grid": (
        rows_of(x=X, y=X.round(1)),
        r"column 'y': its numbers lie on a grid of 0.1, .* set data.columns.y: \{dequantize: 0.1\}",
        {"data.columns": {"y": {"dequantize": 0.1}}},
        "y",
    ),
    "capital letters": (
        rows_of(x=X, y=["yes", "Yes", "no"] * 20),
        "column 'y': 'Yes' and 'yes' differ in capital letters alone",
        {},
        "",
    ),
    "accents": (
        rows_of(x=X, y=["caf\xe9", "cafe\u0301", "tea"] * 20),
        r"column 'y': 'cafe\\u0301' and 'caf\\xe9' differ in spaces or the form of accents alone",
        {},
        "",
    ),
    "spaces": (
        rows_of(x=X, y=["New York", "New\xa0York", "Bonn"] * 20),
        r"column 'y': 'New York' and 'New\\xa0York' differ in spaces or the form of accents alone",
        {},
        "",
    ),
    "a category that is called NA": (
        rows_of(x=X, y=["NA", "DE", "FR", ""] * 15),
        "column 'y': '' and 'NA' stand for no value: if 'NA' is a category, rename it in the file",
        {},
        "",
    ),
    "several lines": (
        rows_of(x=X, y=["a", "b", "c\nd"] * 20),
        "column 'y': 20 texts go over several lines: is a quote left open",
        {},
        "",
    ),
}


@pytest.mark.parametrize("case", SUSPECTED)
def test_what_may_be_meant_otherwise_is_said_and_the_remedy_works(
    case: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By prepare, by inspect, and in what inspect proposes."""
    content, message, remedy, kept = SUSPECTED[case]
    assert re.search(message, " ".join(prepared_notes(workspace, content))), load_schema().notes
    capsys.readouterr()
    copy = workspace / "data/raw/copy.csv"  # not that of params.yaml
    copy.write_text(content)
    inspect.main(inspect.parser().parse_args([str(copy)]))
    proposal = YAML(typ="safe", pure=True).load(
        capsys.readouterr().out.split("in place of these keys:\n")[1].split("\nthe")[0]
    )
    for name, value in remedy.items():
        proposed = proposal["data"].get(name.removeprefix("data."))
        if name == "data.columns":
            assert {column: proposed[column] for column in value} == value
        else:
            assert proposed == value or set(value) - {"x"} <= set(proposed)
    if remedy:
        after = " ".join(prepared_notes(workspace, content, **remedy))
        assert not re.search(message, after)
        assert not kept or kept in load_schema().names


@pytest.mark.parametrize(("centre", "step"), [(0, 0.1), (500, 0.1), (20, 0.01)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_grid_is_seen_however_many_bits_numbers_have(kind: type, centre: float, step: float, workspace: Path) -> None:
    """And its noise may be added; numbers that lie between are none of a grid, however few bits they have."""
    values = np.round((X + centre) / step) * step
    frame = pd.DataFrame({"x": X, "y": values.astype(kind), "z": (X * 100 + 5000).astype(np.float32)})
    write_table(workspace, frame, "table.parquet")
    params: dict[str, Any] = {"data.path": "data/raw/table.parquet", "model.likelihood": {"name": "mixed"}}
    write_params(workspace, **params)
    prepare.main()
    found = [note for note in load_schema().notes if "lie on a grid" in note]
    assert len(found) == 1
    assert f"set data.columns.y: {{dequantize: {step:g}}}" in found[0]
    write_params(workspace, **params, **{"data.columns": {"y": {"dequantize": step}}})
    prepare.main()
    frame["y"] = (values + step / 10).astype(kind)
    write_table(workspace, frame, "table.parquet")
    with pytest.raises(InputError, match=f"data.dequantize: {step:g} needs multiples"):
        prepare.main()


def test_one_word_for_no_value_is_none_to_speak_of(workspace: Path) -> None:
    for gap in ("", "NA", "None"):
        assert prepared_notes(workspace, rows_of(x=X, y=[gap, "DE", "FR"] * 20, n=["", "NA", *X[2:]])) == []
    content = rows_of(x=X, y=["None", "DE", "FR", ""] * 15)
    assert "if 'None' is a category" in prepared_notes(workspace, content)[0]
    renamed = content.replace("None", "none at all")
    assert prepared_notes(workspace, renamed) == []
    assert load_schema().columns[1].categories == ["DE", "FR", "none at all"]
    assert prepared_notes(workspace, content, **{"data.missing": ["None"]}) == []


def test_zero_has_no_sign(workspace: Path) -> None:
    content = rows_of(x=X, y=["-0" if i % 3 else round(i / 7, 5) for i in range(60)])
    assert any("training rows have 0 in column 'y'" in note for note in prepared_notes(workspace, content))


def test_names_of_rows_are_no_categories(workspace: Path) -> None:
    """How they are spelled is not said, since they are left out."""
    names = [f"Name{i}" for i in range(58)] + ["NAME1", "name2"]
    assert prepared_notes(workspace, rows_of(x=X, y=names)) == []
    assert load_schema().names == ["x"]


def test_a_file_is_looked_at_as_params_say_of_it(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or by the separator that it has; the proposal has what differs from the defaults."""
    path = workspace / "data/raw/table.csv"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{x};{y}\n" for x, y in [("x", "y"), *[(i * 0.37, f"{i % 7},5") for i in range(60)]]))
    inspect.main(inspect.parser().parse_args(["data/raw/table.csv"]))
    said = capsys.readouterr().out
    assert "60 rows, 2 columns" in said
    assert "delimiter: ;" in said
    write_params(workspace, **{"data.delimiter": ";", "data.exclude": ["x"], "data.decimal": ","})
    inspect.main(inspect.parser().parse_args(["data/raw/table.csv"]))
    said = capsys.readouterr().out
    assert "as params.yaml says of it" in said
    assert "60 rows, 1 columns" in said
    assert "decimal: ','" in said
