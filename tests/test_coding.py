"""A value is coded by the schema alone: what other values its file has is nothing to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.base.errors import InputError
from pipeline.reading.columns.apply import Application
from pipeline.reading.columns.coding import matched
from pipeline.stages import prepare
from pipeline.tables.schema import SPLITS, Schema, load_index, load_schema, load_split
from tests.workspace import write_params, write_table

ROWS = 120
RNG = np.random.default_rng(0)
X = RNG.normal(size=ROWS)


def prepared(workspace: Path, frame: pd.DataFrame, **changes: Any) -> Schema:
    write_table(workspace, frame)
    write_params(workspace, **changes)
    prepare.main()
    return load_schema()


def coded(schema: Schema, *values: str, column: str = "v") -> list[float]:
    """The positions of these values of a column, in a file of its own."""
    frame = pd.DataFrame({name: list(values) if name == column else ["0.5"] * len(values) for name in schema.names}, dtype=str)
    y, _ = Application(schema, 0).prepared(frame, 0)
    return y[:, schema.names.index(column)].tolist()


def versions(*levels: str) -> pd.DataFrame:
    return pd.DataFrame({"x": X, "v": [levels[i % len(levels)] for i in range(ROWS)]})


def test_a_version_is_no_number_in_any_file(workspace: Path) -> None:
    """Trained beside texts, 2.10 is a category of its own, also where a file has nothing but such versions."""
    schema = prepared(workspace, versions("2.1", "2.10", "rc", "beta", "alpha"), **{"data.columns": {"v": {"other": True}}})
    known = schema.columns[1].categories
    assert known == ["2.1", "2.10", "alpha", "beta", "rc", "other"]
    assert coded(schema, "2.10", "3.1", "0.2") == [1, 5, 5]
    assert coded(schema, "2.10", "3.1", "0.2", "rc") == [1, 5, 5, 4]


def test_sizes_that_are_numbers_and_texts_are_read_alone(workspace: Path) -> None:
    schema = prepared(workspace, versions("1.0", "2.50", "S", "M", "L", "XL"))
    assert coded(schema, "1.0", "2.50") == coded(schema, "1.0", "2.50", "S")[:2] == [0, 1]


def test_declared_categories_are_as_they_are_written(workspace: Path) -> None:
    """2.1 and 2.10 are two, and it is said that they are one number."""
    schema = prepared(workspace, versions("2.1", "2.10", "3.0"), **{"data.columns": {"v": "categorical"}})
    assert schema.columns[1].categories == ["2.1", "2.10", "3.0"]
    assert any("'2.1' and '2.10' are one number, but two categories" in note for note in schema.notes)
    assert coded(schema, "3", "3.00", "2.10") == [2, 2, 1]
    assert schema.table(np.array([[0.0, 1.0]]))["v"].tolist() == ["2.10"]


def test_texts_among_numbers_may_be_declared_to_have_an_order(workspace: Path) -> None:
    frame = versions("2", "3", "4", "5more")
    schema = prepared(workspace, frame, **{"data.columns": {"v": {"kind": "ordinal", "order": ["2", 3, "4", "5more"]}}})
    assert schema.columns[1].categories == ["2", "3", "4", "5more"]
    assert coded(schema, "5more", "3.0") == [3, 1]


@pytest.mark.parametrize("spelling", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_truth_values_of_all_formats_score_each_other(spelling: tuple[str, str], workspace: Path) -> None:
    """However they are written, and as Parquet has them, whichever was trained on."""
    truth = RNG.random(ROWS) < 0.5
    as_texts = pd.DataFrame({"x": X, "v": np.where(truth, *spelling)})
    schema = prepared(workspace, as_texts)
    assert schema.columns[1].categories == ["False", "True"]
    other = pd.DataFrame({"x": X, "v": truth.astype(np.int8)})
    by_texts = Application(schema, 0).prepared(as_texts, 0)
    np.testing.assert_array_equal(Application(schema, 0).prepared(other, 0)[0], by_texts[0])
    write_table(workspace, pd.DataFrame({"x": X, "v": truth}), "table.parquet")
    write_params(workspace, **{"data.path": "data/raw/table.parquet"})
    prepare.main()
    of_parquet = Application(load_schema(), 0)
    np.testing.assert_array_equal(of_parquet.prepared(as_texts, 0)[0][:, 1], truth)
    np.testing.assert_array_equal(of_parquet.prepared(other, 0)[0][:, 1], truth)


@pytest.mark.parametrize(("kind", "form"), [("count", "03.0f"), ("continuous", "07.3f")])
def test_numbers_with_leading_zeros_are_numbers_where_it_is_declared(kind: str, form: str, workspace: Path) -> None:
    x = np.random.default_rng(0).poisson(40, 120) / (1 if kind == "count" else 8)
    frame = pd.DataFrame({"n": X, "v": [f"{value:{form}}" for value in x]})
    schema = prepared(workspace, frame, **{"data.columns": {"v": kind}})
    assert [column.kind for column in schema.columns] == ["continuous", kind]
    assert schema.columns[1].range == (x.min(), x.max())
    assert coded(schema, "007", "7", "7.0") == [coded(schema, "7")[0]] * 3


def test_truth_values_in_all_spellings_are_two(workspace: Path) -> None:
    assert prepared(workspace, versions("True", "TRUE", "true", "false", "FALSE")).columns[1].categories == ["False", "True"]


@pytest.mark.parametrize(
    ("levels", "known", "places"),
    [
        (["1", "1.0", "01", "2.50"], ["1", "2.5"], [0, 0, -1, 1]),
        (["2.1", "2.10", "2.100"], ["2.1", "2.10"], [0, 1, -1]),
        (["True", "1", "0", "False"], ["False", "True"], [1, 1, 0, 0]),
        (["True", "False"], ["0", "1"], [1, 0]),
        (["True", "1"], ["0", "1", "2"], [-1, 1]),
        (["inf", "nan", "x"], ["x", "y"], [-1, -1, 0]),
    ],
)
def test_categories_are_matched_as_written_or_as_numbers(levels: list[str], known: list[str], places: list[float]) -> None:
    assert matched(levels, known).tolist() == places


def mixed() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "x": X.round(2),
            "v": [["2.1", "2.10", "rc", "1.0"][i % 4] for i in range(ROWS)],
            "n": rng.poisson(3, ROWS),
            "grade": rng.integers(1, 4, ROWS),
            "yes": np.where(rng.random(ROWS) < 0.5, "true", "false"),
        }
    ).astype(str)


COLUMNS = {"data.columns": {"x": {"dequantize": 0.01}, "v": {"other": True}}}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=30), cut=st.integers(1, 30), first=st.integers(0, 1000))
def test_any_split_order_or_subset_of_a_file_is_coded_alike(
    prepared_mixed: tuple[Schema, pd.DataFrame], rows: list[int], cut: int, first: int
) -> None:
    """The values, the noise that is added to them, and the ids that other noise follows from."""
    schema, frame = prepared_mixed
    all_y, all_ids = Application(schema, 0).prepared(frame, 0)
    some = frame.iloc[rows]
    parts = [Application(schema, 0).prepared(part, first) for part in (some[:cut], some[cut:]) if len(part)]
    np.testing.assert_array_equal(np.concatenate([y for y, _ in parts]), all_y[rows])
    np.testing.assert_array_equal(np.concatenate([ids for _, ids in parts]), all_ids[rows])


@pytest.fixture
def prepared_mixed(workspace: Path) -> tuple[Schema, pd.DataFrame]:
    return prepared(workspace, mixed(), **COLUMNS), mixed()


def test_categories_are_those_of_prepare(prepared_mixed: tuple[Schema, pd.DataFrame]) -> None:
    schema, frame = prepared_mixed
    y, ids = Application(schema, 0).prepared(frame, 0)
    for split in SPLITS:
        np.testing.assert_array_equal(load_split(split)[:, 1:], y[load_index(split)][:, 1:])
    different = len(frame.drop_duplicates())
    assert len(np.unique(ids)) == different
    assert (ids >= 0).all()


def test_noise_is_uniform_and_another_one_in_each_column_and_by_each_seed(workspace: Path) -> None:
    """By Kolmogorov and Smirnov; false alarms once in 1e6 changes of the code, as seeds are fixed."""
    schema = prepared(
        workspace, pd.DataFrame({"a": RNG.poisson(9, ROWS), "b": RNG.poisson(9, ROWS)}), **{"data.dequantize": 1}
    )
    rows = pd.DataFrame({"a": np.arange(20_000), "b": 7})
    draws = []
    for seed in (0, 1):
        y, _ = Application(schema, seed).prepared(rows, 0)
        raw = schema.to_raw(y, snap=False)
        draws += [raw[:, 0] % 1, raw[:, 1] % 1]
    assert all(stats.kstest(x, "uniform").pvalue > 1e-6 for x in draws)
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 5 / len(rows) ** 0.5 for i, a in enumerate(draws) for b in draws[:i])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("n", "007", "column 'n', row 2: expected a number, as in training, got '007'; mend the cell"),
        ("n", "x", "column 'n', row 2: expected a number, as in training, got 'x'; mend the cell"),
        ("n", "inf", "column 'n', row 2: expected a finite number, got inf; mend the cell"),
        ("n", "1.5", "column 'n', row 2: a count must be a whole number"),
        ("x", "1.005", "column 'x', row 2 has 1.005"),
        ("grade", "9", "column 'grade', row 2: '9' is none of 1, 2, 3, the categories of the model"),
        ("yes", "maybe", "column 'yes', row 2: 'maybe' is none of False, True"),
    ],
)
def test_what_does_not_fit_the_schema_is_named(
    prepared_mixed: tuple[Schema, pd.DataFrame], column: str, value: str, message: str
) -> None:
    schema, frame = prepared_mixed
    frame.loc[1, column] = value
    with pytest.raises(InputError, match=message):
        Application(schema, 0).prepared(frame, 0)
