"""Rows of which there may be millions: looked at some at a time, and written as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.tables.row_files import RowFile, writing
from pipeline.tables.slices import by_slices, slices, some_of


def test_slices_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tables.slices.AT_A_TIME", 9)
    y = np.arange(22.0).reshape(11, 2)
    np.testing.assert_array_equal(np.concatenate(list(slices(y))), y)
    np.testing.assert_array_equal(by_slices(lambda rows: rows.sum(axis=1), y), y.sum(axis=1))
    np.testing.assert_array_equal(by_slices(lambda rows: np.full(len(rows), len(rows)), y), [4] * 8 + [3] * 3)


def test_some_rows_are_all_of_few_and_a_random_part_of_many() -> None:
    np.testing.assert_array_equal(some_of(5, 5, seed=0), np.arange(5))
    some = some_of(10_000, 1000, seed=0)
    assert len(np.unique(some)) == 1000
    assert (np.diff(some) > 0).all()
    assert abs(some.mean() - 5000) < 5 * 10_000 / np.sqrt(12 * 1000)  # wrong in one of 2 million seeds
    assert (some_of(10_000, 1000, seed=1) != some).any()
    np.testing.assert_array_equal(some_of(10_000, 1000, seed=0), some)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_is_written_as_its_rows_come(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tables.row_files.GROUP", 10)
    table = pd.DataFrame({"index": np.arange(34), "x": np.linspace(0, 1, 34), "gone": [np.nan] * 17 + [1.0] * 17})
    path = tmp_path / f"table{suffix}"
    with RowFile(path) as file:
        for first in range(0, 34, 4):
            file.write(table[first : first + 4].reset_index(drop=True))
    read = pd.read_parquet if suffix == ".parquet" else pd.read_csv
    pd.testing.assert_frame_equal(read(path), table)
    if suffix == ".parquet":
        groups = pq.ParquetFile(path).metadata
        assert [groups.row_group(k).num_rows for k in range(groups.num_row_groups)] == [12, 12, 10]


def test_a_table_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_text("before")

    def fail() -> None:
        with writing(path) as file:
            file.write(pd.DataFrame({"x": [1.0]}))
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
