"""prepare: reading, checks, splits, the transformation and its change of variables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline import check
from pipeline.base.command import run
from pipeline.base.errors import InputError
from pipeline.params.data import Data, Fractions
from pipeline.stages import prepare
from pipeline.tables.schema import SPLITS, load_index, load_probabilities, load_schema, load_split
from tests.workspace import BINARY, ROOT, read_table, table, write_params, write_table


def read(path: Path, **options: Any) -> pd.DataFrame:
    return read_table(Data(path=str(path), fractions=Fractions(train=0.7, valid=0.15, test=0.15), **options))[0]


def prepared(workspace: Path, frame: pd.DataFrame, name: str = "table.csv", **changes: Any) -> dict[str, NDArray[Any]]:
    write_table(workspace, frame, name)
    write_params(workspace, **{"data.path": f"data/raw/{name}", **changes})
    prepare.main()
    return {split: np.array(load_split(split)) for split in SPLITS}


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_splits_partition_the_rows(name: str, workspace: Path) -> None:
    splits = prepared(workspace, table(), name)
    index = np.concatenate([load_index(split) for split in SPLITS])
    assert sorted(index) == list(range(60))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 42, "valid": 9, "test": 9} == load_schema().rows
    for split, rows in splits.items():
        np.testing.assert_allclose(load_schema().to_raw(rows), table().to_numpy()[load_index(split)], atol=1e-4)


def test_the_split_is_a_function_of_the_seed(workspace: Path) -> None:
    first, again, other = (prepared(workspace, table(), seed=seed)["test"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_standardised_by_training_rows_only(workspace: Path) -> None:
    splits = prepared(workspace, table())
    np.testing.assert_allclose(splits["train"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(splits["train"].std(axis=0), 1, atol=1e-6)


def test_densities_are_those_of_raw_data(workspace: Path) -> None:
    """A Gaussian fitted in prepared units plus the change of variables is the Gaussian fitted in raw units."""
    splits = prepared(workspace, table())
    y, raw = splits["train"].astype(float), table().to_numpy()[load_index("train")]
    prepared_density = stats.multivariate_normal(y.mean(axis=0), np.cov(y.T)).logpdf(y) + load_schema().log_jacobian(y)
    raw_density = stats.multivariate_normal(raw.mean(axis=0), np.cov(raw.T)).logpdf(raw)
    np.testing.assert_allclose(prepared_density, raw_density, atol=1e-4)


def test_dequantised_values_snap_back(workspace: Path) -> None:
    frame = table("integer")
    splits = prepared(workspace, frame, **{"data.dequantize": 1})
    raw = load_schema().to_raw(splits["train"], snap=False)
    noise = raw - frame.to_numpy()[load_index("train")]
    assert noise.min() >= -1e-4
    assert noise.max() <= 1 + 1e-4
    # uniform on [0, 1): Kolmogorov-Smirnov at a false-alarm rate of 1e-4
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-4
    assert (load_schema().to_raw(splits["train"]) == frame.to_numpy()[load_index("train")]).mean() > 0.999


def test_bits_per_dimension_have_a_step(workspace: Path) -> None:
    """A uniform density over 8 steps of 2 units is 3 bits a column, whatever the step; continuous data has none."""
    prepared(workspace, 2 * table("integer"), **{"data.dequantize": 2})
    assert load_schema().bits_per_dimension(4 * np.log(1 / 16)) == pytest.approx(3)
    prepared(workspace, table())
    assert load_schema().bits_per_dimension(-1.0) is None


def test_binarisation(workspace: Path) -> None:
    splits = prepared(workspace, table(), **{"data.binarize": 1.5, **BINARY})
    raw = table().to_numpy()[load_index("test")]
    assert np.array_equal(splits["test"], raw > 1.5)
    assert load_schema().is_binary
    assert not load_schema().log_jacobian(splits["test"]).any()


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_intensities_are_drawn_as_zeros_and_ones(how: str, workspace: Path) -> None:
    """Sums over 5 x 16 x 100 draws: beyond 5 standard deviations once in 1.7 million times."""
    grey = pd.DataFrame(np.tile(np.arange(16), (500, 1)), columns=[f"p{i}" for i in range(16)])
    splits = prepared(workspace, grey, **{"data.binarize": how, "data.shape": [4, 4], **BINARY})
    y, p = np.concatenate(list(splits.values())), np.arange(16) / 15
    assert set(np.unique(y)) == {0.0, 1.0}
    assert (np.abs(y.sum(axis=0) - 500 * p) <= 5 * np.sqrt(500 * p * (1 - p))).all()
    probabilities = load_probabilities()
    if how == "static":
        assert probabilities is None
    else:
        np.testing.assert_allclose(np.array(probabilities), np.tile(p, (len(splits["train"]), 1)), atol=1e-6)
    with pytest.raises(InputError, match=r"data.binarize: .* need intensities from 0 on; column 'p0', row 1 has -1"):
        prepared(workspace, grey - 1, **{"data.binarize": how, "data.shape": [4, 4], **BINARY})


def test_columns_can_be_left_out(workspace: Path) -> None:
    frame = table().assign(note="text")
    prepared(workspace, frame, **{"data.exclude": ["note", "b"]})
    assert load_schema().names == ["a", "c", "d"]


def test_integers_without_dequantisation_are_noted(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(workspace, table("integer"))
    assert "note: whole numbers under a density, which is not bounded: [a, c]" in capsys.readouterr().out


def test_constant_columns_under_dequantisation_are_noted(workspace: Path) -> None:
    prepared(workspace, table("integer").assign(e=7), **{"data.dequantize": 1})
    assert "constant in the training rows, and nothing but the noise that was added now: [e]" in load_schema().notes
    prepared(workspace, table("binary").assign(e=1), **BINARY)
    assert "constant in the training rows, and kept, as a probability is bounded: [e]" in load_schema().notes


CSV = "a,b,c\n" + "".join(f"{i},{i * 2 % 7},{i % 5}\n" for i in range(40))

BAD_FILES: dict[str, tuple[str | bytes | None, dict[str, Any], str]] = {
    "missing": (None, {}, "data.path: data/raw/table.csv does not exist; put the file there"),
    "empty": ("", {}, r"table.csv is empty \(0 bytes\)"),
    "header only": ("a,b,c\n", {}, "table.csv has no rows"),
    "short row": (CSV + "1,2\n", {}, "line 42: too few fields, 2 where the first line has 3; complete the row"),
    "long row": (CSV + "1,2,3,4\n", {}, "line 42: too many fields, 4 where the first line has 3"),
    "text": (CSV + "1,two,3\n", {}, "column 'b', row 41: expected a number, got 'two'; mend the cell"),
    "texts": (CSV + "1,2,x\n1,2,y\n", {}, r"column 'c', row 41: expected a number, got 'x' \(so are 1 more, in rows 42\)"),
    "infinity": (CSV + "1,2,inf\n", {}, "column 'c', row 41: expected a finite number, got inf"),
    "duplicate names": (CSV.replace("a,b,c", "a,b,a"), {}, "duplicate column name 'a'; every column needs its own name"),
    "latin-1": (CSV.replace("a,b,c", "a,b,ü").encode("latin-1"), {}, "is not UTF-8 text .*; save it as UTF-8"),
    "few rows": ("a,b\n" + "1,2\n3,5\n4,4\n", {}, r"data.fractions.\w+: gives \d of the 3 rows .* use more rows"),
    "semicolons": (CSV.replace(",", ";"), {}, "columns seem to be separated by ';', not by ','; set data.delimiter .* to it"),
    "no header": (
        CSV.split("\n", 1)[1],
        {},
        r"the first line, 0,0,0\.\.\., has numbers for names; if it is data, set data.header: false",
    ),
    "no header, and no number": (
        "1.5,NaN,3\n" + CSV.split("\n", 1)[1],
        {},
        r"the first line, 1\.5,NaN,3\.\.\., has numbers for names",
    ),
    "outside": (CSV, {"data.path": "../table.csv"}, "lies outside the repository, .*; copy it into data/raw/"),
    "unknown column": (CSV, {"data.exclude": ["z"]}, r"data.exclude: no column 'z' in .*; its columns are \[a, b, c\]"),
    "no column": (CSV, {"data.exclude": ["a", "b", "c"]}, "data.exclude: leaves no column"),
    "shape": (CSV, {"data.shape": [2, 2]}, r"data.shape: \[2, 2\] needs 4 columns, but .* has 3 after data.exclude"),
    "grid": (CSV + "1,2.5,3\n", {"data.dequantize": 1}, "needs multiples of 1; column 'b', row 41 has 2.5"),
    "constant": (
        "a,b,c\n" + "".join(f"{i}.5,{8.5 if i == 5 else 7},{i}\n" for i in range(40)),
        {},
        r"column 'b' is constant in the training rows, so its density is unbounded; leave it out with data.exclude: \[b\]",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_input_is_named_and_writes_nothing(
    case: str, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, changes, message = BAD_FILES[case]
    write_table(workspace)
    write_params(workspace)
    prepare.main()
    before = {path: path.read_bytes() for path in (workspace / "data/prepared").iterdir()}
    write_params(workspace, **changes)
    path = workspace / str(changes.get("data.path", "data/raw/table.csv"))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        prepare.main()
    monkeypatch.setattr(sys, "argv", ["prepare"])
    assert run("prepare", "", prepare.main) == 1
    assert capsys.readouterr().err.startswith("error in stage prepare: ")
    assert {path: path.read_bytes() for path in (workspace / "data/prepared").iterdir()} == before
    assert not (workspace / "data/prepared.partial").exists()


def hostile(values: object, rows: int = 60) -> pd.DataFrame:
    """A table whose column b is hostile."""
    return table(rows=rows).assign(b=values)


HOSTILE: dict[str, tuple[pd.DataFrame, str, dict[str, Any], str]] = {
    "tiny": (hostile(np.linspace(1e-200, 2e-200, 60)), "t.csv", {}, "column 'b': .* too extreme to compute with"),
    "huge": (hostile(np.linspace(1e200, 2e200, 60)), "t.csv", {}, "column 'b': .* too extreme to compute with"),
    "outlier": (
        hostile([1e22] + [float(i) for i in range(59)]),
        "t.csv",
        {"data.scale": "none"},
        "column 'b': .* too extreme",
    ),
    "offset": (
        hostile(1e9 + np.random.default_rng(0).normal(size=60)),
        "t.csv",
        {"data.scale": "none"},
        "column 'b': .* too large for float32 to tell them apart",
    ),
    "large integers": (
        hostile(2**25 + np.arange(60)).round(),
        "t.csv",
        {"data.scale": "none", "data.dequantize": 1},
        "column 'b': .* too large for float32",
    ),
    "dates": (
        hostile(pd.date_range("2020", periods=60)),
        "t.parquet",
        {"data.dequantize": 1},
        "data.dequantize: needs numbers, but column 'b' holds dates or durations",
    ),
    "lists": (hostile([[1, 2]] * 60), "t.parquet", {}, "column 'b', row 1: expected a number or a text, got array"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_columns_are_refused(case: str, workspace: Path) -> None:
    frame, name, changes, message = HOSTILE[case]
    with pytest.raises(InputError, match=message):
        prepared(workspace, frame, name, **changes)
    assert not (workspace / "data/prepared").exists()


def test_an_index_that_pandas_wrote_is_refused(workspace: Path) -> None:
    path = write_table(workspace)
    table().to_csv(path)
    with pytest.raises(InputError, match="column 1 has no name; name it, or, if it is an index that pandas wrote"):
        read(path)


def test_parquet_keeps_columns_that_pandas_used_as_an_index(workspace: Path) -> None:
    path = write_table(workspace, name="table.parquet")
    table().set_index("a").to_parquet(path)
    assert set(read(path).columns) == {"a", "b", "c", "d"}
    pd.DataFrame(np.eye(3)).to_parquet(path)
    assert list(read(path).columns) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"2\n3,4\n', "not valid CSV|too few fields"),
        ("a\n1\n\n2\n", "line 3: is empty; remove it"),
    ],
)
def test_odd_csv_is_refused(text: str, message: str, workspace: Path) -> None:
    path = write_table(workspace)
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


def test_damaged_parquet_is_refused(workspace: Path) -> None:
    path = write_table(workspace, name="table.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        read(path)


def test_a_folder_is_not_a_file(workspace: Path) -> None:
    write_table(workspace)
    write_params(workspace, **{"data.path": "data/raw"})
    with pytest.raises(InputError, match=r"data.path: data/raw is a folder without .*; name the file in it"):
        check.main()


def test_a_byte_order_mark_is_not_part_of_a_name(workspace: Path) -> None:
    path = write_table(workspace)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read(path).columns) == ["a", "b", "c", "d"]


def test_the_bundled_digits_are_scikit_learns() -> None:
    sys.path.insert(0, str(ROOT / "data"))
    try:
        from make_digits import digits  # type: ignore[import-not-found,unused-ignore]
    finally:
        sys.path.pop(0)
    pd.testing.assert_frame_equal(read(ROOT / "data/raw/digits.csv").astype("int64"), digits())
