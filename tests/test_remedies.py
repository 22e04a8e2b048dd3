"""What an error says to do is done, and prepare goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import InputError
from pipeline.stages import prepare
from pipeline.tables.schema import load_schema
from tests.workspace import BINARY, write_params, write_table

ROWS = 60
HELD_OUT = 5  # a row that is not trained on
RNG = np.random.default_rng(0)
X = RNG.normal(size=ROWS).round(6).tolist()


def csv(*, between: str = ",", **columns: Any) -> str:
    rows = zip(*columns.values(), strict=True)
    return "".join(between.join(map(str, row)) + "\n" for row in [tuple(columns), *rows])


def some(*values: Any) -> list[Any]:
    return [values[i % len(values)] for i in range(ROWS)]


def but(values: list[Any], row: int, value: Any) -> list[Any]:
    return [*values[:row], value, *values[row + 1 :]]


class Case(NamedTuple):
    """A table that is refused, what is said, and the table or the params that are mended as it says."""

    content: str
    message: str
    mended: dict[str, Any] | str
    params: dict[str, Any] = {}  # noqa: RUF012


LOG = {"data.columns": {"b": {"transform": "log"}}}
COUNTS = RNG.poisson(3, ROWS).tolist()
CASES = {
    "text: missing": Case(
        csv(a=X, b=but(X, 3, "?")), r"b', row 4: expected a number, got '\?'; .* data.missing", {"data.missing": ["?"]}
    ),
    "text: exclude": Case(csv(a=X, b=but(X, 3, "?")), "leave the column out with data.exclude", {"data.exclude": ["b"]}),
    "a comma": Case(
        csv(between=";", a=some(1, 4, 2), b=[f"{i},5" if i % 3 == 0 else i for i in range(ROWS)]),
        "expected a number, got '0,5' .*; set data.decimal: ',', if that is how its numbers are written",
        {"data.decimal": ","},
        {"data.delimiter": ";"},
    ),
    "thousands": Case(
        csv(between=";", a=X, b=[f"{i},{i % 10}00" if 0 < i % 9 < 3 else i for i in range(ROWS)]),
        "expected a number, got '1,100' .*; set data.thousands: ','",
        {"data.thousands": ","},
        {"data.delimiter": ";"},
    ),
    "brackets": Case(
        csv(a=X, b=[f"({-x})" if -1 < x < 0 else x for x in X]),
        r"expected a number, got '\(0.132105\)' .*; set data.signs: \['\(\)'\]",
        {"data.signs": ["()"]},
    ),
    "a minus behind": Case(
        csv(a=X, b=[f"{-x}-" if -1 < x < 0 else x for x in X]),
        r"expected a number, got '0.132105-' .*; set data.signs: \['-'\]",
        {"data.signs": ["-"]},
    ),
    "infinite": Case(
        csv(a=X, b=but(X, 3, "inf")), "expected a finite number, got inf; .* with data.missing", {"data.missing": ["inf"]}
    ),
    "half a count": Case(
        csv(a=X, b=but(COUNTS, 3, 1.5)),
        "b', row 4: a count must be .* set data.columns.b to continuous",
        {"data.columns": {"b": "continuous"}},
        {"data.columns": {"b": "count"}},
    ),
    "constant": Case(
        csv(a=X, b=but(some(7.5), HELD_OUT, 8.5)), "b' is constant .* data.exclude: \\[b\\]", {"data.exclude": ["b"]}
    ),
    "constant: step": Case(
        csv(a=X, b=but(some(7.5), HELD_OUT, 8.5)),
        "set data.dequantize to its step",
        {"data.columns": {"b": {"dequantize": 0.5}}},
    ),
    "grid": Case(
        csv(a=X, b=some(1, 2.5)),
        "data.dequantize: 1 needs multiples of 1; .* set the right step there or in data.columns",
        {"data.columns": {"b": {"dequantize": 0.5}}},
        {"data.columns": {"b": {"dequantize": 1}}},
    ),
    "no order": Case(
        csv(a=X, b=some("s", "m", "l")),
        r"need their order, .* \{kind: ordinal, order: \[l, m, s\]\}",
        {"data.columns": {"b": {"kind": "ordinal", "order": ["l", "m", "s"]}}},
        {"data.columns": {"b": "ordinal"}},
    ),
    "not in the order": Case(
        csv(a=X, b=but(some("s", "m"), 3, "l")),
        r"'l' is none of s, m, .* give it a place in data.columns.b: \{kind: ordinal, order: \[s, m\]\}",
        {"data.columns": {"b": {"order": ["s", "m", "l"]}}},
        {"data.columns": {"b": {"order": ["s", "m"]}}},
    ),
    "a rare category": Case(
        csv(a=X, b=but(some("s", "m", "l"), HELD_OUT, "xl")),
        r"'xl' is none of l, m, s, .* set data.columns.b to \{kind: categorical, other: true\}",
        {"data.columns": {"b": {"kind": "categorical", "other": True}}},
    ),
    "a third of two": Case(
        csv(a=X, b=but(some("s", "m"), HELD_OUT, "xl")),
        r"'xl' is none of m, s, .* set data.columns.b to \{kind: categorical, other: true\}",
        {"data.columns": {"b": {"kind": "categorical", "other": True}}},
        {"data.columns": {"b": "binary"}},
    ),
    "three are not two": Case(
        csv(a=X, b=some("s", "m", "l")),
        "is binary, but the training rows have 3 different values: .* to categorical",
        {"data.columns": {"b": "categorical"}},
        {"data.columns": {"b": "binary"}},
    ),
    "one category": Case(
        csv(a=X, b=some("s")),
        "has just one value in the training rows, s; leave it out",
        {"data.exclude": ["b"]},
        {"data.columns": {"b": "categorical"}},
    ),
    "nothing left": Case(
        csv(a=some("s"), b=some("m")),
        "no column is left, as a: always 's'; .* declare the kinds of some",
        csv(a=X, b=some("m")),
    ),
    "texts as numbers": Case(
        csv(a=X, b=some("s", "m", "l")),
        "continuous needs numbers, but the column holds texts such as 's'; declare",
        {"data.columns": {"b": "categorical"}},
        {"data.columns": {"b": "continuous"}},
    ),
    "log of 0": Case(
        csv(a=X, b=[i % 7 + 0.5 if i else 0 for i in range(ROWS)]),
        "log needs values greater than 0; got 0; choose standardize",
        {"data.columns": {"b": {"transform": "standardize"}}},
        LOG,
    ),
    "ties": Case(
        csv(a=X, b=[i + 0.25 if i % 2 else 0 for i in range(ROWS)]),
        "data.columns.b.transform: .* choose standardize",
        {"data.columns": {"b": {"transform": "standardize"}}},
        {"data.columns": {"b": {"transform": "quantile"}}},
    ),
    "far from 0": Case(
        csv(a=X, b=[1e9 + x for x in X]),
        "too large for float32 .* set data.scale: standardize",
        {"data.scale": "standardize"},
        {"data.scale": "none"},
    ),
    "two names": Case(
        "a,a\n" + csv(a=X, b=X[::-1])[4:], "duplicate column name 'a'; every column needs its own name", csv(a=X, b=X[::-1])
    ),
    "no name": Case(
        ",a\n" + csv(a=X, b=X[::-1])[4:], "column 1 has no name; name it, or, .* with index=False", csv(a=X, b=X[::-1])
    ),
    "no header": Case(
        csv(a=X, b=X[::-1])[4:], "has numbers for names; if it is data, set data.header: false", {"data.header": False}
    ),
    "names that are numbers": Case(
        csv(**{"400": X, "410": X[::-1]}),
        "has numbers for names; if it is data, .*; if they are names, put a letter before each",
        csv(nm400=X, nm410=X[::-1]),
    ),
    "a title": Case(
        "# of the survey\n# in 2020\n" + csv(a=X, b=X[::-1]),
        "line 3: too many fields, 2 where the first line has 1; .*; remove lines above that are none of the table",
        csv(a=X, b=X[::-1]),
    ),
    "a comma too much": Case(
        csv(a=X, b=X[::-1]) + "1,2,\n",
        "line 62: too many fields, 3 where the first line has 2; remove what is too much, or quote it",
        csv(a=X, b=X[::-1]) + "1,2\n",
    ),
    "shape": Case(
        csv(a=X, b=X[::-1]),
        r"data.shape: \[2, 2\] needs 4 columns, but .* has 2 .* set it to null for a table",
        {"data.shape": None},
        {"data.shape": [2, 2]},
    ),
    "a space": Case(
        csv(**{"a": X, "b ": X[::-1]}),
        "no column 'b' in .*; 'b ' has other spaces, which belong to its name",
        {"data.exclude": ["b "]},
        {"data.exclude": ["b"]},
    ),
    "texts under noise": Case(
        csv(a=COUNTS, b=some("s", "m", "l")),
        "data.dequantize: needs numbers, but column 'b' holds texts, such as 's'; leave it out with data.exclude",
        {"data.exclude": ["b"]},
        {"data.dequantize": 1},
    ),
    "below 0": Case(
        csv(a=X, b=X[::-1]),
        "static and dynamic need intensities from 0 on; .* or set a threshold",
        {"data.binarize": 0.0},
        {"data.binarize": "static", **BINARY},
    ),
    "few rows": Case(csv(a=X[:4], b=X[-4:]), r"gives 1 of the 4 rows of .* use more rows", csv(a=X, b=X[::-1])),
    "small share": Case(
        csv(a=X, b=X[::-1]),
        r"data.fractions.valid: gives 1 of the 60 rows of .* or a larger fraction",
        {"data.fractions": {"train": 0.8, "valid": 0.1, "test": 0.1}},
        {"data.fractions": {"train": 0.89, "valid": 0.01, "test": 0.1}},
    ),
    "short row": Case(
        csv(a=X, b=X[::-1]) + "1\n",
        "line 62: too few fields, 1 where the first line has 2; complete the row or remove it",
        csv(a=X, b=X[::-1]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_an_error_says_to_do_helps(name: str, workspace: Path) -> None:
    case = CASES[name]
    path = workspace / "data/raw/table.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(case.content)
    write_params(workspace, **case.params)
    with pytest.raises(InputError, match=case.message):
        prepare.main()
    if isinstance(case.mended, str):
        path.write_text(case.mended)
    else:
        write_params(workspace, **{**case.params, **case.mended})
    prepare.main()
    assert load_schema().columns


@pytest.mark.parametrize(("value", "code"), [(np.inf, "inf"), (-np.inf, "-inf"), (np.inf, "Infinity")])
@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_infinite_numbers_may_stand_for_none_in_all_formats(name: str, value: float, code: str, workspace: Path) -> None:
    write_table(workspace, pd.DataFrame({"a": X, "b": but(X, 3, value)}), name)
    write_params(workspace, **{"data.path": f"data/raw/{name}"})
    with pytest.raises(InputError, match=rf"row 4: expected a finite number, got {value}; .* missing with data.missing"):
        prepare.main()
    write_params(workspace, **{"data.path": f"data/raw/{name}", "data.missing": [code]})
    prepare.main()
    assert load_schema().columns[1].missing == 1


def test_a_text_that_is_called_parquet_is_read_once_it_is_not(workspace: Path) -> None:
    path = workspace / "data/raw/table.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(csv(a=X, b=X[::-1]))
    write_params(workspace, **{"data.path": "data/raw/table.parquet"})
    with pytest.raises(InputError, match=r"not a readable Parquet file: .* if it is of another format, give it that one"):
        prepare.main()
    path.rename(path.with_suffix(".csv"))
    write_params(workspace)
    prepare.main()
    assert load_schema().names == ["a", "b"]


def test_a_text_that_is_not_utf8_is_read_once_it_is(workspace: Path) -> None:
    path = workspace / "data/raw/table.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = csv(a=X, b=some("ü", "m"))
    path.write_bytes(content.encode("cp1252"))
    write_params(workspace)
    with pytest.raises(InputError, match=r"is not UTF-8 text \(.* at byte \d+\); save it as UTF-8"):
        prepare.main()
    path.write_bytes(content.encode())
    prepare.main()
    assert load_schema().columns[1].categories == ["m", "ü"]
