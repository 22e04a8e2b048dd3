"""The column program: the same bytes wherever the blocks lie, and what a computation over the whole table gives."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.base.errors import InputError
from pipeline.dvc.formats import md5
from pipeline.reading.columns import kept, passes
from pipeline.stages import prepare
from pipeline.tables.schema import SPLITS, Column, load_index, load_schema, load_split
from pipeline.tables.statistics import Moments, Range
from tests.workspace import mixed_table, write_params, write_table

ROWS = 500
COLUMNS = {"height": {"transform": "quantile"}, "weight": {"transform": "log"}, "age": {"dequantize": 1}}


def big_table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = mixed_table(ROWS, gaps=True)
    return frame.assign(
        weight=np.exp(rng.normal(size=ROWS)) + 1e4, age=rng.integers(0, 90, ROWS), ward=rng.choice(["A", "B"], ROWS)
    )


def prepared(**changes: Any) -> dict[str, str]:
    write_params(Path(), **{"data.columns": COLUMNS, **changes})
    prepare.main()
    return {path.name: md5(path) for path in Path("data/prepared").iterdir()}


@pytest.mark.parametrize("changes", [{}, {"data.split": {"stratify": "ward"}}, {"data.split": {"group": "age"}}])
def test_bytes_do_not_depend_on_where_blocks_lie(
    changes: dict[str, Any], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory or in files, columns sorted together or one by one, from one file or from several."""
    write_table(workspace, big_table())
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 64)
    in_memory = prepared(**changes)
    monkeypatch.setattr(prepare, "kept_blocks", lambda beside: kept.kept_blocks(beside, limit=3 * 64 * 80))
    monkeypatch.setattr(passes, "VALUES_IN_MEMORY", 1)
    assert prepared(**changes) == in_memory
    folder = workspace / "data/raw/parts"
    folder.mkdir()
    for number, first in enumerate((0, 10, 300)):
        big_table()[first : (10, 300, ROWS)[number]].to_parquet(folder / f"{number}.parquet", index=False)
    of_parts = prepared(**{"data.path": "data/raw/parts", **changes})
    assert {**of_parts, "schema.json": ""} == {**in_memory, "schema.json": ""}
    assert not list((workspace / "data").glob("*.partial"))


def positions(x: pd.Series, column: Column) -> pd.Series:
    if column.categories is None:
        return x
    known = {float(text) if column.numeric else text: position for position, text in enumerate(column.categories)}
    return x.map(known, na_action="ignore")


def test_blocks_give_what_the_whole_table_gives(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same program over one block of all rows, and NumPy over the columns; values to the last bits of float32."""
    frame = big_table().drop(columns=["age", "ward"])
    write_table(workspace, frame)
    write_params(workspace, **{"data.columns": {"height": {"transform": "quantile"}, "weight": {"transform": "log"}}})
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 37)
    prepare.main()
    schema, index = load_schema(), {split: load_index(split) for split in SPLITS}
    assert sorted(np.concatenate(list(index.values()))) == list(range(ROWS))
    train = frame.iloc[index["train"]]
    weights = np.log(train["weight"])
    assert schema.columns[-1].transform.shift == pytest.approx(weights.mean(), rel=1e-14)
    assert schema.columns[-1].transform.scale == pytest.approx(weights.std(ddof=0), rel=1e-10)
    for column in schema.columns:
        x = positions(frame[column.name], column)
        y = column.transform.forward(x.iloc[index["train"]].to_numpy(float))
        level = np.log1p(y) if column.kind == "count" else y
        assert column.centre == pytest.approx(np.nanmean(level), abs=1e-12)
        assert column.spread == pytest.approx(np.nanstd(level), rel=1e-10)
        assert column.range == (np.nanmin(x), np.nanmax(x))
        assert column.missing == frame[column.name].isna().sum()
        for split in SPLITS:
            expected = column.transform.forward(x.iloc[index[split]].to_numpy(float))
            np.testing.assert_allclose(load_split(split)[:, schema.names.index(column.name)], expected, rtol=2e-7)


CELLS = {  # texts that are neither numbers nor words for missing values
    "continuous": st.floats(-1e3, 1e3, width=32),
    "count": st.integers(0, 2000),
    "categorical": st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), max_size=4).map("_{}".format),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Columns of each kind with gaps, their kinds, and a format."""
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=3))
    rows, columns = 30, {}  # of at most four categories, so that training rows have them all
    for number, kind in enumerate(kinds):
        different = draw(st.lists(CELLS[kind], min_size=3, max_size=4 if kind == "categorical" else 30, unique=True))
        values = [different[draw(st.integers(0, len(different) - 1))] for _ in range(rows)]
        gaps = draw(st.lists(st.booleans(), min_size=rows, max_size=rows)) if draw(st.booleans()) else [False] * rows
        columns[f"{kind} {number}"] = pd.Series(values, dtype=object).mask(pd.Series(gaps))
    return pd.DataFrame(columns), dict(zip(columns, kinds, strict=True)), draw(st.sampled_from([".csv", ".parquet"]))


@settings(max_examples=10, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(drawn=tables(), scale=st.sampled_from(["standardize", "none"]))
def test_any_table_comes_back(drawn: tuple[pd.DataFrame, dict[str, str], str], scale: str, workspace: Path) -> None:
    """Written, read, split, transformed and inverted; numbers to float32's precision."""
    frame, kinds, suffix = drawn
    path = workspace / f"drawn{suffix}"
    numbers = frame.astype({name: float for name, kind in kinds.items() if kind != "categorical"})
    numbers.to_csv(path, index=False) if suffix == ".csv" else numbers.to_parquet(path, index=False)
    write_params(workspace, **{"data.path": path.name, "data.columns": kinds, "data.scale": scale})
    try:
        prepare.main()
    except InputError:  # of a category that only a test row has, and the like, which other tests are for
        reject()
    for split in SPLITS:
        expected = numbers.iloc[load_index(split)].reset_index(drop=True)
        back = load_schema().table(np.array(load_split(split)))
        for name in back.columns:
            if kinds[name] == "categorical":
                assert back[name].fillna("").astype(str).tolist() == expected[name].fillna("").tolist()
            else:
                np.testing.assert_allclose(back[name].astype(float), expected[name], rtol=1e-6, atol=1e-3)


FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False)
NUMBERS = arrays.arrays(np.float64, st.integers(1, 60), elements=FLOATS | st.just(np.nan) | st.just(3.0))


@settings(deadline=None)
@given(x=NUMBERS, size=st.integers(1, 20), offset=st.sampled_from([0.0, 1e9]))
def test_moments_add_up(x: np.ndarray, size: int, offset: float) -> None:
    x = x + offset
    parts = [x[first : first + size] for first in range(0, len(x), size)]
    moments, limits = reduce(add, map(Moments.of, parts)), reduce(add, map(Range.of, parts))
    assert moments.count == np.isfinite(x).sum()
    if moments.count:
        scale = np.nanmax(np.abs(x)) or 1.0
        assert moments.mean == pytest.approx(np.nanmean(x), abs=1e-13 * scale)
        assert moments.std == pytest.approx(np.nanstd(x), rel=1e-7, abs=1e-14 * scale)
        assert (limits.least, limits.greatest) == (np.nanmin(x), np.nanmax(x))


@pytest.mark.parametrize("size", [ROWS, 37])
def test_values_that_many_training_rows_share_are_told(size: int, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they lie in the table; those of a column by their number."""
    rng = np.random.default_rng(0)
    tied = rng.choice([0.5, 1.5, 2.5], ROWS, p=[0.6, 0.35, 0.05])
    frame = pd.DataFrame(
        {
            "often": np.where(rng.random(ROWS) < 0.5, tied, rng.normal(size=ROWS)),
            "late": [*rng.normal(size=ROWS - 150), *[7.0] * 150],
            "never": rng.normal(size=ROWS),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    write_table(workspace, frame)
    write_params(workspace)
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", size)
    prepare.main()
    train = frame.iloc[load_index("train")]
    counts = {name: column.value_counts() for name, column in train.items()}
    expected = [
        f"{count} of {train[name].count()} training rows have {value:g} in column {name!r}"
        for name, of_column in counts.items()
        for value, count in of_column.items()
        if count > 0.1 * train[name].count()
    ]
    assert len(expected) >= 2
    assert [note.split(":")[0] for note in load_schema().notes if "training rows have" in note] == expected
