"""inspect: what is said of a file, and that the params it suggests prepare it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline import inspect
from pipeline.base.command import command
from pipeline.params.whole import load_params
from pipeline.stages import prepare
from pipeline.tables.schema import load_schema
from tests.workspace import mixed_table, write_params, write_table


def said_of(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, dict[str, Any]]:
    """What is printed, and the params in it."""
    inspect.main(inspect.parser().parse_args([str(path), *options]))
    said = capsys.readouterr().out
    yaml = said.split("in place of these keys:\n")[1].split("\nthe")[0]
    return said, YAML(typ="safe", pure=True).load(yaml)


def flattened(content: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, values in content.items() for name, value in values.items()}


def table() -> pd.DataFrame:
    frame = mixed_table(200)
    income = np.exp(np.random.default_rng(0).normal(size=200)).round(3)
    return frame.assign(
        income=income,
        again=income,
        gender=frame["sex"].map({"female": "f", "male": "m"}),
        age=np.where(np.arange(200) % 9 == 0, -999, np.arange(200) % 70),
        share=np.random.default_rng(1).random(200),
        size=[*[1.5, 2.5] * 99, 2.25, 1e6],
        id=range(200),
    )


def test_what_is_odd_is_named(workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block or in many."""
    path = write_table(workspace, table())
    said, params = said_of(path, capsys)
    lines, name = dict[str, str](), ""
    for cells in ([cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")):
        name = cells[0] or name  # a cell goes on in the next line
        lines[name] = " ".join([lines.get(name, ""), *cells[1:]])
    assert "-999 in 23 rows: data.missing?" in " ".join(lines["age"].split())
    assert "1e+06 is" in lines["size"]
    assert "says the same as income" in " ".join(lines["again"].split())
    assert "says the same as sex" in " ".join(lines["gender"].split())
    assert "left out" in lines["id"]
    assert params["data"]["exclude"] == ["again", "gender"]
    assert params["data"]["columns"] == {"income": {"transform": "log"}, "share": {"transform": "none"}}
    assert params["model"]["likelihood"]["columns"]["share"] == {"name": "beta"}
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 17)
    assert said_of(path, capsys) == (said, params)


def test_what_is_suggested_is_accepted(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_table(workspace, table()).relative_to(workspace)
    _, params = said_of(path, capsys, "--missing=-999")
    assert params["data"]["missing"] == [-999]
    write_params(workspace, **flattened(params))
    load_params()
    prepare.main()
    columns = {column.name: column for column in load_schema().columns}
    assert columns["age"].missing == 23
    assert set(columns) == {*mixed_table().columns, "income", "age", "share", "size"}


def test_grey_images_are_recognised(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/raw/images.npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 4, 4)))
    said, params = said_of(path, capsys)
    assert "60 rows, 16 columns" in said
    assert params["data"]["shape"] == [4, 4]
    write_params(workspace, **flattened(params))
    prepare.main()
    assert load_schema().is_binary


def test_a_layout_and_files_that_are_not_read_are_said(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("data/raw/pictures")
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    np.save(folder.with_suffix(".npy"), pixels.transpose(1, 2, 0))
    said, params = said_of(folder.with_suffix(".npy"), capsys, "--layout=HWCN")
    assert "60 rows, 16 columns" in said
    assert params["data"]["layout"] == "HWCN"
    write_params(workspace, **flattened(params))
    prepare.main()
    for number, row in enumerate(pixels):
        Image.fromarray(row).save(folder / f"{number}.png")
    (folder / "labels.csv").write_text("label\n")
    said, _ = said_of(folder, capsys)
    assert "note: not read in data/raw/pictures: 1 .csv (labels.csv)\n" in said


def test_a_file_that_cannot_be_read_is_an_error(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", "data/raw/none.csv"])
    assert command("inspect", inspect.parser(), inspect.main) == 1
    assert "data/raw/none.csv does not exist" in capsys.readouterr().err
