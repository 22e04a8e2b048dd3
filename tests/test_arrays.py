"""Arrays: which axis is which, MATLAB's version 7.3, and several of them in one file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import score
from pipeline.base.errors import InputError
from pipeline.foretelling.excerpt import COUNTED
from pipeline.params.data import LAYOUTS
from pipeline.reading.formats import check_files, reader_of
from pipeline.stages import prepare, train
from pipeline.tables.schema import load_schema
from tests.test_readers import VALUES, Rows, data_of, idx, mat73, read
from tests.workspace import read_table, write_params

PICTURES = np.random.default_rng(0).integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)


ARRAYS: dict[str, Callable[[Path, Rows], Any]] = {
    "a.npy": np.save,
    "fortran.npy": lambda path, values: np.save(path, np.asfortranarray(values)),
    "a.npz": lambda path, values: np.savez(path, x=values),
    "a.mat": lambda path, values: scipy.io.savemat(path, {"x": values}),
    "new.mat": lambda path, values: mat73(path, x=values),
    "a.idx": lambda path, values: path.write_bytes(idx(values)),
}
MOVED = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 3, 1, 2), "HWCN": (1, 2, 3, 0)}  # the pictures in this layout
ORDERS = {
    ("NHWC", 4): (0, 1, 2, 3), ("NCHW", 4): (0, 2, 3, 1), ("HWCN", 4): (3, 0, 1, 2),
    ("NHWC", 3): (0, 1, 2), ("NCHW", 3): (0, 1, 2), ("HWCN", 3): (2, 0, 1),
}  # fmt: skip
NUMBER = st.integers(1, 5)


# ---- layouts


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ARRAYS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.tuples(NUMBER, NUMBER, NUMBER, st.sampled_from([0, 1, 3])), batch=st.integers(1, 6))
def test_axes_are_moved(name: str, layout: str, sizes: tuple[int, ...], batch: int, tmp_path: Path) -> None:
    """To rows, height, width and channels, of grey pictures with and without an axis for the channel; and counted so."""
    shape = sizes if sizes[3] else sizes[:3]
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    held = values.transpose(np.argsort(ORDERS[layout, values.ndim]))
    path = tmp_path / name
    ARRAYS[name](path, held)
    options = {"layout": layout, "shape": list(shape[1:])}
    if path.suffix == ".idx" and layout == "HWCN":
        with pytest.raises(InputError, match=r"rows follow each other in .*; set it to NCHW or NHWC, or to null"):
            read(path, **options)
        return
    if path.suffix == ".mat" and held.shape[-1] == 1:  # MATLAB drops such axes at the end
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.reading.formats.reader.ROWS", batch)
        assert np.array_equal(read(path, **options), values.reshape(len(values), -1))
    assert COUNTED[reader_of(path)](path, data_of(path, **options)) == len(values)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_axes_that_are_not_those_of_the_shape_are_refused(layout: str, name: str, tmp_path: Path) -> None:
    """Naming the layout that fits, which then is accepted."""
    if (name, layout) == ("a.idx", "HWCN"):
        return
    path = tmp_path / name
    held = PICTURES.transpose(MOVED[layout])
    ARRAYS[name](path, held)
    with pytest.raises(InputError) as raised:
        read(path, shape=[4, 5, 3])
    shape, row = (f"({', '.join(map(str, sizes))})" for sizes in (held.shape, held.shape[1:]))
    said = str(raised.value)
    assert f"data.shape: is [4, 5, 3], but a row of {path}, which has the shape {shape}, is {row}; set data.layout" in said
    (remedy,) = re.findall(r"set data.layout \(of a command: --layout\) to (\w+)", said)
    assert remedy == layout
    assert np.array_equal(read(path, shape=[4, 5, 3], layout=remedy), PICTURES.reshape(60, -1))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(NUMBER, min_size=2, max_size=4),
    shape=st.tuples(NUMBER, NUMBER, st.sampled_from([1, 3])),
    layout=st.sampled_from([None, *LAYOUTS]),
)
def test_no_array_is_scrambled(sizes: list[int], shape: tuple[int, ...], layout: str | None, tmp_path: Path) -> None:
    """What is accepted has its rows in the shape's own order, or flat; a remedy that is named is accepted."""
    values = np.arange(np.prod(sizes)).reshape(sizes)
    np.save(tmp_path / "a.npy", values)
    error = ""
    try:
        held = read(tmp_path / "a.npy", shape=list(shape), layout=layout).to_numpy()
    except InputError as refused:
        error = str(refused)
    if remedies := re.findall(r"set data.layout \(.*\) to (\w+)|set it to (null)", error):
        read(tmp_path / "a.npy", shape=list(shape), layout=remedies[0][0] or None)
    if error:
        assert remedies or "mend data.shape, or save the array with these axes" in error
        return
    order = ORDERS[layout, len(sizes)] if layout else range(len(sizes))
    moved = values.transpose(order)
    assert np.array_equal(held, moved.reshape(len(moved), -1))
    row = [size for size in moved.shape[1:] if size != 1]
    assert len(row) < 2 or row == [size for size in shape if size != 1]


def test_rows_that_are_last_are_not_taken_for_columns(tmp_path: Path) -> None:
    """As of SVHN, also where no shape is declared."""
    np.save(tmp_path / "a.npy", PICTURES.transpose(MOVED["HWCN"]))
    message = r"shape of .*a.npy, \(4, 5, 3, 60\), looks like height x width x channels x rows; set it to HWCN if it is, or"
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.npy")
    assert len(read(tmp_path / "a.npy", layout="HWCN")) == 60
    assert len(read(tmp_path / "a.npy", layout="NHWC")) == 4


def test_a_layout_is_for_arrays_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(InputError, match=r"data.layout: NCHW is for arrays of 3 or 4 axes, but .* \(7, 6\); set it to null"):
        read(tmp_path / "a.npy", layout="NCHW")
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(VALUES).to_csv("a.csv", index=False)
    for ask in (read_table, check_files):
        with pytest.raises(InputError, match=r"data.layout: is for arrays, which a.csv is not; set it to null"):
            ask(data_of(Path("a.csv"), layout="NCHW"))


def test_a_model_scores_arrays_of_its_own_shape_only(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("data/raw/pictures.npy")
    path.parent.mkdir(parents=True)
    np.save(path, PICTURES.transpose(MOVED["NCHW"]))
    write_params(workspace, **{"data.path": str(path), "data.shape": [4, 5, 3], "data.layout": "NCHW", "data.dequantize": 1})
    prepare.main()
    train.main()
    assert load_schema().shape == (4, 5, 3)
    options = [str(path), "--out", str(workspace / "scores.csv"), "--samples", "5"]
    with pytest.raises(InputError, match=r"set data.layout \(of a command: --layout\) to NCHW"):
        score.main(score.parser().parse_args(options))
    score.main(score.parser().parse_args([*options, "--layout", "NCHW"]))
    assert "scored 60 rows" in capsys.readouterr().out


# ---- MATLAB 7.3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(NUMBER, min_size=2, max_size=4), kind=st.sampled_from(["f8", "u1", "?"]), batch=st.integers(1, 6))
def test_both_versions_of_matlab_say_the_same(sizes: list[int], kind: str, batch: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, sizes).astype(kind)
    scipy.io.savemat(tmp_path / "a.mat", {"x": values})
    mat73(tmp_path / "b.mat", x=values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.reading.formats.reader.ROWS", batch)
        layout = "NHWC" if len(sizes) > 2 else None
        known, new = read(tmp_path / "a.mat", layout=layout), read(tmp_path / "b.mat", layout=layout)
    assert np.array_equal(known, values.reshape(len(values), -1))
    pd.testing.assert_frame_equal(known, new)
    count = COUNTED[reader_of(tmp_path / "b.mat")]
    assert count(tmp_path / "b.mat", data_of(tmp_path / "b.mat", layout=layout)) == len(values)


@pytest.mark.parametrize("kind", ["f8", "f4", "i4", "u1", "sparse"])
def test_matlab_4_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(0).integers(0, 2, (7, 3))
    held = scipy.sparse.csc_matrix(values.astype(float)) if kind == "sparse" else values.astype(kind)
    scipy.io.savemat(path, {"x": held}, format="4")
    assert np.array_equal(read(path), values)
    assert COUNTED[reader_of(path)](path, data_of(path)) == 7
    scipy.io.savemat(path, {"x": held, "name": np.array(["abc"])}, format="4")
    assert np.array_equal(read(path, key="x"), values)
    with pytest.raises(InputError, match="name holds char, not numbers"):
        read(path, key="name")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="is not a readable MATLAB file"):
        read(path)


def test_what_is_no_matrix_of_numbers_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    mat73(path, x=VALUES, y=VALUES + 0.5)
    with h5py.File(path, "r+") as file:
        sparse = file.create_group("sparse")
        sparse.attrs["MATLAB_sparse"], sparse.attrs["MATLAB_class"] = np.uint64(7), np.bytes_("double")
        file.create_group("record").attrs["MATLAB_class"] = np.bytes_("struct")
        file.create_dataset("words", data=np.zeros((3, 1), np.uint16)).attrs["MATLAB_class"] = np.bytes_("char")
        file.create_dataset("none", data=np.zeros(2, np.uint64)).attrs["MATLAB_empty"] = np.uint8(1)
    assert np.array_equal(read(path, key="y"), VALUES + 0.5)
    for key, message in {
        "sparse": "sparse is sparse, which is not read from version 7.3; save it with -v7, or as full",
        "record": "record holds struct, not numbers; save a matrix of numbers, and name it in data.key",
        "words": "words holds char, not numbers",
        "none": "none is empty; name another one in data.key",
        "z": "must name one of the arrays in .*, which are none, record, sparse, words, x, y; got 'z'",
    }.items():
        with pytest.raises(InputError, match=message):
            read(path, key=key)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"is not a readable MATLAB 7.3 file"):
        read(path)


# ---- several arrays in one file


SPLIT = {"train_data": VALUES, "valid_data": VALUES[:2], "test_data": VALUES[3:]}
SEVERAL: dict[str, Callable[[Path], Any]] = {
    "a.npz": lambda path: np.savez(path, labels=np.zeros(3), **SPLIT),
    "a.mat": lambda path: scipy.io.savemat(path, {"labels": np.zeros(3), **SPLIT}),
    "new (1) of all.mat": lambda path: mat73(path, labels=np.zeros(3), **SPLIT),
}
ROWS = [*["train"] * 7, *["valid"] * 2, *["test"] * 4]


@pytest.mark.parametrize("name", SEVERAL)
def test_arrays_of_one_file_are_the_splits(name: str, tmp_path: Path) -> None:
    """As the message says that asks for one of them, whether ``data.path`` is the file or its folder."""
    SEVERAL[name](tmp_path / name)
    with pytest.raises(InputError) as raised:
        read(tmp_path / name)
    said = str(raised.value)
    assert "data.key: must name one of the arrays in" in said
    files = YAML(typ="safe", pure=True).load(said.partition("data.files: ")[2])
    assert files == {split: f"{name}:{split}_data" for split in ("train", "valid", "test")}
    for path in (tmp_path / name, tmp_path):
        table, splits = read_table(data_of(path, files=files))
        assert np.array_equal(table, np.concatenate(list(SPLIT.values())))
        assert splits == ROWS


def test_splits_of_one_file_are_prepared(workspace: Path) -> None:
    Path("data/raw").mkdir(parents=True)
    np.savez("data/raw/a.npz", x_train=np.random.default_rng(0).normal(size=(40, 3)), x_test=np.eye(3), y_test=[0, 1, 2])
    for path in ("data/raw", "data/raw/a.npz"):
        write_params(workspace, **{"data.path": path, "data.files": {"train": "a.npz:x_train", "test": "a.npz:x_test"}})
        prepare.main()
        assert load_schema().rows["test"] == 3


def test_a_file_that_is_called_so_comes_first(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", b=VALUES, c=VALUES)
    np.save(tmp_path / "a.npz:b", VALUES[:3])  # which adds .npy
    (tmp_path / "a.npz:b.npy").rename(tmp_path / "a.npz:b")
    np.savez(tmp_path / "C:d.npz", **{"b:c": VALUES[:2], "x": VALUES})
    assert len(read(tmp_path, files={"train": "a.npz:b"})) == 3
    assert len(read(tmp_path, files={"train": "a.npz:c"})) == 7
    assert len(read(tmp_path, files={"train": "C:d.npz:b:c"})) == 2


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text("a:b.", min_size=1, max_size=5), key=st.text("a:b", min_size=1, max_size=5))
def test_any_colon_is_understood(name: str, key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The longest name of a file that there is, and the rest is the array."""
    folder = tmp_path_factory.mktemp("colons")
    if name.strip(".") == "" or name.endswith(":"):
        return
    np.savez(folder / "held.npz", **{key: VALUES})
    (folder / "held.npz").rename(folder / name)
    assert len(read(folder, files={"train": f"{name}:{key}"})) == 7


def test_what_names_no_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", b=VALUES)
    np.save(tmp_path / "b.npy", VALUES)
    for files, path, message in (
        ({"train": "a.npz:c"}, tmp_path, "data.key: must name one of the arrays in .*a.npz, which are b; got 'c'"),
        ({"train": "b.npy:c"}, tmp_path, "data.files.train: .*b.npy has no arrays with names; name it without ':c'"),
        ({"train": "c.npz:c"}, tmp_path, "c.npz:c does not exist"),
        ({"train": "b.npy"}, tmp_path / "a.npz", "data.files.train: .*b.npy is not .*a.npz, which data.path names"),
    ):
        with pytest.raises(InputError, match=message):
            read(path, files=files)
