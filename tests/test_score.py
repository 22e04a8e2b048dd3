"""score: rows of a file, with the model's own checks of its columns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import score
from pipeline.base.command import command
from pipeline.base.errors import InputError
from pipeline.model.loading import load_model
from pipeline.reading.columns.apply import Application
from pipeline.stages import prepare, train
from pipeline.tables.schema import SPLITS, load_index, load_schema, load_split
from tests.workspace import BINARY, mixed_table, table, write_params, write_table
from vae.evidence import importance_sampling

MIXED = {"model.likelihood": {"name": "mixed"}}


def trained(workspace: Path, frame: pd.DataFrame, **changes: Any) -> Path:
    path = write_table(workspace, frame)
    write_params(workspace, **changes)
    prepare.main()
    train.main()
    return path


def scored(path: Path, *options: str) -> pd.DataFrame:
    out = Path("scores.parquet")
    score.main(score.parser().parse_args([str(path), "--out", str(out), "--samples", "20", "--threads", "1", *options]))
    return pd.read_parquet(out)


def test_rows_are_prepared_and_scored_as_those_of_the_data(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their own file gives the prepared values of training; log p is that of raw data, whatever the blocks."""
    frame = mixed_table(gaps=True)
    frame["height"] = np.exp(frame["height"])
    path = trained(workspace, frame, **MIXED, **{"data.columns": {"height": {"transform": "log"}}})
    found, schema = scored(path), load_schema()
    assert found["index"].tolist() == list(range(60))
    y = np.empty((60, 6), dtype=np.float32)
    for split in SPLITS:
        y[load_index(split)] = load_split(split)
    _, ids = Application(schema, 0).prepared(pd.read_csv(path, dtype=str, keep_default_na=False), 0)
    direct = importance_sampling(load_model(schema), torch.tensor(y), 20, ids=torch.from_numpy(ids)).log_likelihood.numpy()
    np.testing.assert_allclose(found["log_likelihood"], direct + schema.log_jacobian(y), rtol=1e-6)
    parts = found[[name for name in found if str(name).startswith("given_rest_")]]
    assert np.array_equal(parts.isna().to_numpy(), np.isnan(y))
    said = capsys.readouterr().out
    least = int(found["log_likelihood"].to_numpy().argmin())
    assert f"│ {least + 1} │ {found['log_likelihood'][least]:.2f} │" in " ".join(said.split())
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 7)
    pd.testing.assert_frame_equal(scored(path), found, rtol=1e-5)


def test_log_p_of_a_row_is_its_own(workspace: Path) -> None:
    """Whatever other rows its file has, and wherever it stands there, with noise on its grid and of the estimator."""
    frame = mixed_table().round({"height": 1})
    columns = {"height": {"dequantize": 0.1}, "grade": "categorical"}
    found = scored(trained(workspace, frame, **MIXED, **{"data.columns": columns}))
    rows = np.random.default_rng(0).permutation(60)[:23]
    some = scored(write_table(workspace, frame.iloc[rows], "some.csv"))
    for name in ("log_likelihood", "effective_sample_size", "reconstruction_height"):
        np.testing.assert_allclose(some[name], found[name].to_numpy()[rows], rtol=1e-6, err_msg=name)
    (one,) = scored(write_table(workspace, frame.iloc[[7]], "one.parquet"))["log_likelihood"]
    np.testing.assert_allclose(one, found["log_likelihood"][7], rtol=1e-6)


def test_other_files_need_the_columns_only(workspace: Path) -> None:
    """In any order, with others beside them, in another format."""
    path = trained(workspace, mixed_table(), **MIXED)
    found = scored(path)
    other = workspace / "data/raw/other.parquet"
    frame = mixed_table().assign(note="x")
    frame[frame.columns[::-1]].to_parquet(other)
    pd.testing.assert_frame_equal(scored(other), found, rtol=1e-6)
    assert list(scored(other, "--no-parts").columns) == ["index", "log_likelihood", "effective_sample_size"]
    scored(path, "--out", "scores.csv")
    pd.testing.assert_frame_equal(pd.read_csv("scores.csv"), found, rtol=1e-6)


SPELT: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "delimiter": ("csv", {"sep": ";"}, {"data.delimiter": ";"}, "set data.delimiter .of a command: --delimiter. to it"),
    "header": ("csv", {"header": False}, {"data.header": False}, "set data.header: false .of a command: --no-header."),
    "key": ("npz", {}, {"data.key": "x"}, "data.key: must name one of .* which are x, y; got None .of a command: --key."),
}


@pytest.mark.parametrize("what", SPELT)
def test_what_params_say_of_a_file_is_an_option(what: str, workspace: Path) -> None:
    """The error names it, and it helps."""
    suffix, options, params, message = SPELT[what]
    path = workspace / f"data/raw/table.{suffix}"
    path.parent.mkdir(parents=True)
    if suffix == "npz":
        np.savez(path, x=table(), y=table())
    else:
        table().to_csv(path, index=False, **options)
    write_params(workspace, **{"data.path": f"data/raw/{path.name}"}, **params)
    prepare.main()
    train.main()
    with pytest.raises(InputError, match=message):
        scored(path)
    value = params[f"data.{what}"]
    assert len(scored(path, *([f"--{what}", value] if value else [f"--no-{what}"]))) == 60


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("integer", {"data.dequantize": 1}),
        ("continuous", {"data.binarize": 1.5, **BINARY}),
        ("binary", BINARY),
    ],
)
def test_treatments_are_applied_again(kind: str, changes: dict[str, Any], workspace: Path) -> None:
    path = trained(workspace, table(kind), **changes)
    found = scored(path)
    assert np.isfinite(found["log_likelihood"]).all()
    again = scored(path, "--seed", "1")
    same = np.isclose(found["log_likelihood"], again["log_likelihood"], rtol=1e-12)
    assert not same.all()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no column": ({"height": None}, r"column 'height' of the model is not in the file; its columns are \[visits, sex"),
    "text": ({"height": "tall"}, "column 'height', row 4: expected a number, got 'tall'|column 'height', row 4: expected"),
    "infinite": ({"height": "inf"}, "column 'height', row 4: expected a finite number, got inf"),
    "category": ({"colour": "violet"}, "column 'colour', row 4: 'violet' is none of blue, green, red, the categories of"),
    "count": ({"visits": -2}, "column 'visits', row 4: a count must be a whole number from 0"),
    "binary": ({"smokes": 2}, "column 'smokes', row 4: expected 0 or 1, as in training, got 2"),
    "gap": ({"visits": ""}, "column 'visits' has no value in row 4, and the model was trained on complete rows only"),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_unlike_the_schema_are_refused(
    case: str, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is written."""
    cells, message = BAD[case]
    trained(workspace, mixed_table(), **MIXED)
    frame = mixed_table().astype(object)
    for name, value in cells.items():
        if value is None:
            frame = frame.drop(columns=name)
        else:
            frame.loc[3, name] = value
    path = write_table(workspace, frame, "new.csv")
    with pytest.raises(InputError, match=message):
        scored(path)
    monkeypatch.setattr(sys, "argv", ["score", str(path)])
    assert command("score", score.parser(), score.main) == 1
    assert capsys.readouterr().err.startswith("error in stage score: column ")
    assert not [file for file in workspace.iterdir() if "scores" in file.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.txt"], "--out: a.txt must end in .csv or .parquet"),
        (["--samples", "0"], "--samples must be at least 1; got 0"),
        (["--workers", "0"], "--workers must be at least 1; got 0"),
        (["--model", "elsewhere"], "elsewhere/schema.json is missing"),
        (["--out", "data/raw/table.csv"], "--out: data/raw/table.csv is the file that is read"),
    ],
)
def test_bad_options_are_named(options: list[str], message: str, workspace: Path) -> None:
    path = write_table(workspace)
    with pytest.raises(InputError, match=message):
        scored(path, *options)
