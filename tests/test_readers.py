"""Readers: every format gives back what was written; what is damaged is named."""

from __future__ import annotations

import csv
import gzip
import io
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.params.data import Data, Files, Fractions
from pipeline.reading.formats import format_of, reader
from tests.workspace import read_table

FRACTIONS = Fractions(train=0.7, valid=0.15, test=0.15)
VALUES = np.random.default_rng(0).integers(0, 256, (7, 6), dtype=np.uint8)
Rows = NDArray[Any]


def data_of(path: Path, **options: Any) -> Data:
    return Data(path=str(path), fractions=FRACTIONS, **options)


def read(path: Path, **options: Any) -> pd.DataFrame:
    return read_table(data_of(path, **options))[0]


def idx(values: Rows) -> bytes:
    kinds = {"u1": 8, "i1": 9, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    kind = values.dtype.str[1:]
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, kinds[kind], values.ndim]) + sizes + values.astype(">" + kind).tobytes()


def pictures(folder: Path, values: Rows) -> None:
    folder.mkdir()
    for number, row in enumerate(values):
        Image.fromarray(row.reshape(2, 3)).save(folder / f"{number:03}.png")


def parts(folder: Path, values: Rows) -> None:
    (folder / "more").mkdir(parents=True)
    reader.frame(values[:3]).to_parquet(folder / "1.parquet")
    reader.frame(values[3:]).to_parquet(folder / "more" / "2.parquet")


def mat73(path: Path, **variables: Any) -> None:
    """As MATLAB writes its version 7.3: a header of its own, then HDF5 with the axes in reverse."""
    names = {"f": "double", "u": "uint8", "b": "logical"}
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")
        for name, values in variables.items():
            array = np.asarray(values)
            held = file.create_dataset(name, data=array.T.astype("u1" if array.dtype == bool else array.dtype))
            held.attrs["MATLAB_class"] = np.bytes_(names[array.dtype.kind])
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov 30 2026 HDF5 schema 1.00 .".ljust(116))
        file.write(bytes(8) + b"\x00\x02IM")


WRITERS: dict[str, Callable[[Path, Rows], Any]] = {
    "a.csv": lambda path, values: reader.frame(values).to_csv(path, index=False),
    "a.csv.gz": lambda path, values: reader.frame(values).to_csv(path, index=False),
    "a.csv.bz2": lambda path, values: reader.frame(values).to_csv(path, index=False),
    "gzip under another name.csv": lambda path, values: path.write_bytes(
        gzip.compress(reader.frame(values).to_csv(index=False).encode())
    ),
    "a.csv.xz": lambda path, values: reader.frame(values).to_csv(path, index=False),
    "a.csv.zip": lambda path, values: reader.frame(values).to_csv(path, index=False),
    "a.data": lambda path, values: reader.frame(values).to_csv(path, index=False),
    "a.tsv": lambda path, values: reader.frame(values).to_csv(path, index=False, sep="\t"),
    "a.parquet": lambda path, values: reader.frame(values).to_parquet(path),
    "parquet under another name": lambda path, values: reader.frame(values).to_parquet(path),
    "folder of parquet": parts,
    "a.npy": np.save,
    "a.npz": lambda path, values: np.savez_compressed(path, x=values),
    "two.npz": lambda path, values: np.savez(path, other=values[:2], x=values),
    "images-idx3-ubyte": lambda path, values: path.write_bytes(idx(values.reshape(-1, 2, 3))),
    "images-idx3-ubyte.gz": lambda path, values: path.write_bytes(gzip.compress(idx(values.reshape(-1, 2, 3)))),
    "a.mat": lambda path, values: scipy.io.savemat(path, {"x": values, "y": "text"}, do_compression=True),
    "sparse.mat": lambda path, values: scipy.io.savemat(path, {"x": scipy.sparse.csc_array(values.astype(float))}),
    "7.3.mat": lambda path, values: mat73(path, x=values),
    "folder of images": pictures,
}
ARRAYS = {"a.npy", "a.npz", "two.npz", "images-idx3-ubyte", "images-idx3-ubyte.gz", "a.mat", "sparse.mat", "7.3.mat"}
ARRAYS |= {"folder of images"}


@pytest.mark.parametrize("batch", [65_536, 2])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_recognised_and_read(name: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", batch)
    path = tmp_path / name
    WRITERS[name](path, VALUES)
    key = "x" if name in ("two.npz", "a.mat") else None
    table = read(path, key=key)
    assert np.array_equal(table.astype(np.int64), VALUES)
    assert list(table.columns) == [str(number) for number in range(6)]
    assert format_of(data_of(path)) == (".npy" if name in ARRAYS else ".tsv" if name == "a.tsv" else format_of(data_of(path)))


NUMBERS = st.one_of(
    arrays.integer_dtypes(sizes=(8, 16, 32)), arrays.unsigned_integer_dtypes(sizes=8), arrays.floating_dtypes(sizes=(32, 64))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=arrays.arrays(NUMBERS, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements={"allow_infinity": False}))
def test_arrays_come_back_as_they_were(values: Rows, tmp_path: Path) -> None:
    """Whatever the type, the order of bytes and the values."""
    plain = values.astype(values.dtype.newbyteorder("="))
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", x=values)
    (tmp_path / "a.idx").write_bytes(idx(plain))
    scipy.io.savemat(tmp_path / "a.mat", {"x": plain})
    reader.frame(plain).to_parquet(tmp_path / "a.parquet")
    for name in ("a.npy", "a.npz", "a.idx", "a.mat", "a.parquet"):
        np.testing.assert_array_equal(read(tmp_path / name).to_numpy(), plain, err_msg=name)


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), separator=st.sampled_from([",", ";", "\t"]))
def test_texts_come_back_as_they_were(rows: list[tuple[str, str]], separator: str, tmp_path: Path) -> None:
    """Quotes, separators and spaces in fields too, but for those that a field begins with, unless they are quoted."""
    table = pd.DataFrame(rows, columns=["first", "second"], dtype=str)
    table.to_csv(tmp_path / "a.csv", index=False, sep=separator)
    back = read(tmp_path / "a.csv", delimiter=separator)
    assert back.map(str.lstrip, na_action="ignore").to_numpy().tolist() == [[cell.lstrip() for cell in row] for row in rows]
    table.to_csv(tmp_path / "a.csv", index=False, sep=separator, quoting=csv.QUOTE_ALL)
    assert read(tmp_path / "a.csv", delimiter=separator).to_numpy().tolist() == [list(row) for row in rows]


def test_files_of_the_splits_follow_each_other(tmp_path: Path) -> None:
    reader.frame(VALUES[:4]).to_csv(tmp_path / "a.csv", index=False)
    reader.frame(VALUES[:4]).to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "b.npy", VALUES[4:])
    table, splits = read_table(data_of(tmp_path, files=Files(train="a.parquet", test="b.npy")))
    assert np.array_equal(table.astype(int), VALUES)
    assert splits == ["train"] * 4 + ["test"] * 3
    reader.frame(VALUES[:, :5]).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(InputError, match=r"data.files: .*c.csv has other columns than the first; it lacks '5'"):
        read_table(data_of(tmp_path, files=Files(train="a.csv", valid="c.csv")))


def test_columns_of_files_are_matched_by_their_names(tmp_path: Path) -> None:
    """In any order; what is excluded may be in one of them only, as the labels of a competition are."""
    frame = pd.DataFrame({"a": range(6), "b": range(6, 12), "label": list("xyxyxy")}).astype(str)
    frame[:3].to_csv(tmp_path / "train.csv", index=False)
    frame[3:][["b", "a"]].to_csv(tmp_path / "test.csv", index=False)
    files = Files(train="train.csv", test="test.csv")
    with pytest.raises(InputError, match=r"test.csv has other columns than the first; it lacks 'label'; .* data.exclude"):
        read(tmp_path, files=files)
    table = read(tmp_path, files=files, exclude=["label"])
    assert table[["a", "b"]].equals(frame[["a", "b"]])
    assert table["label"].isna().tolist() == [False] * 3 + [True] * 3
    with pytest.raises(
        InputError, match=r"train.csv has other columns than the first; it adds 'label'; leave it out of that file"
    ):
        read(tmp_path, files=Files(train="test.csv", test="train.csv"))


@pytest.mark.parametrize("odd", ["texts", "dates", "none"])
def test_a_column_is_of_one_kind_in_all_files(odd: str, tmp_path: Path) -> None:
    """Of numbers, of texts or of dates; one without values goes with any."""
    values = {"texts": ["1", "b"], "dates": pd.to_datetime(["2020-01-01", "2021-01-01"]), "none": [None, None]}[odd]
    table = pd.DataFrame({"x": [1, 2], "n": [1.5, 2.5]})
    for number, column in enumerate((table["n"], values, table["n"])):
        table.assign(n=column).to_parquet(tmp_path / f"{number}.parquet")
    if odd == "none":
        assert read(tmp_path)["n"].tolist() == pytest.approx([1.5, 2.5, np.nan, np.nan, 1.5, 2.5], nan_ok=True)
        return
    with pytest.raises(InputError, match=rf"column 'n' holds numbers in one file and {odd} in another; write it alike in all"):
        read(tmp_path)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("table.csv", content)
    return file.getvalue()


def bomb(path: Path) -> None:
    """An archive that says of one array that it has 2^50 bytes."""
    np.savez_compressed(path, x=VALUES)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


def saved(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def of_mat(**variables: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=True)
    return file.getvalue()


ANNDATA = gzip.decompress((Path(__file__).parent / "files" / "anndata.h5ad.gz").read_bytes())


@pytest.mark.parametrize("batch", [65_536, 2])
def test_anndata_by_its_own_library(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that anndata 0.12.19 wrote, which cannot be installed beside this pandas: CSR in X, a CSC and a dense layer."""
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", batch)
    path = tmp_path / "a.h5ad"
    path.write_bytes(ANNDATA)
    values = np.arange(42).reshape(7, 6) % 5 * (np.arange(42).reshape(7, 6) % 5 > 2)
    genes = [f"gene{number}" for number in range(6)]
    for key, added in ((None, 0), ("X", 0), ("layers/counts", 1), ("layers/dense", 2)):
        pd.testing.assert_frame_equal(read(path, key=key).astype(int), pd.DataFrame(values + added, columns=genes))
    for by, column in (({"group": "donor"}, list("aabbccc")), ({"stratify": "batch"}, [1, 1, 2, 2, 3, 3, 3])):
        assert read(path, split=by)[next(iter(by.values()))].tolist() == column
    assert read(path, split={"column": "split"})["split"].tolist() == ["train"] * 3 + ["valid"] * 2 + ["test"] * 2
    assert format_of(data_of(path)) == ".parquet"
    with pytest.raises(InputError, match=r"which are X, layers/counts, layers/dense; got 'raw'"):
        read(path, key="raw")


def test_anndata_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5ad").write_bytes(ANNDATA)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"AnnData files need h5py; pip install h5py==3.16.0"):
        read(tmp_path / "a.h5ad")


def hdf5(**contents: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as held:
        for name, values in contents.items():
            held[name] = values
    return file.getvalue()


def repeated_genes() -> bytes:
    file = io.BytesIO(ANNDATA)
    with h5py.File(file, "r+") as held:
        held["var/_index"][:] = ["gene0"] * 6
    return file.getvalue()


DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "gzip": ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 500)[:-20], "cannot be decompressed, it may be truncated"),
    "idx": ("a.idx", idx(VALUES)[:-3], "is truncated: 3 bytes are missing at its end"),
    "idx.gz": ("a.idx.gz", gzip.compress(idx(VALUES))[:-9], "cannot be decompressed|is truncated"),
    "long idx": ("a.idx", idx(VALUES) + b"1", "is longer than the 42 values that it declares"),
    "npy": ("a.npy", saved(VALUES)[:-3], "is not a readable NPY file"),
    "pickle": ("a.npy", saved(np.array([{"a": 1}, None])), "holds Python objects, which are not loaded"),
    "texts": ("a.npy", saved(np.array(["a", "b"])), "holds <U1, not numbers"),
    "one number": ("a.npy", saved(np.float64(3)), "holds a single number, not rows"),
    "zip": ("a.zip", zipped(b"a,b\n1,2\n")[:-9], "is not a readable ZIP or NPZ file"),
    "mat": ("a.mat", of_mat(x=VALUES)[:-9], "is not a readable MATLAB file"),
    "cell": ("a.mat", of_mat(x="text"), "x holds char, not numbers"),
    "key": ("a.mat", of_mat(x=VALUES, y=VALUES), "data.key: must name one of the arrays in .* which are x, y; got None"),
    "h5ad": ("a.h5ad", ANNDATA[:9000], "is not a readable AnnData file"),
    "hdf5": ("a.h5", hdf5(x=VALUES), "is HDF5, but not AnnData"),
    "genes": ("a.h5ad", repeated_genes(), "duplicate column name 'gene0'.*var_names_make_unique"),
    "image": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "is not a readable image"),
    "binary": ("a.bin", bytes(range(128, 256)), "is not UTF-8 text"),
    "mat 7.3": ("a.mat", b"MATLAB 7.3 MAT-file".ljust(600), "is not a readable MATLAB 7.3 file"),
    "parquet": ("a.parquet", b"PAR1" + bytes(30), "is not a readable Parquet file"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_is_named(case: str, tmp_path: Path) -> None:
    name, content, message = DAMAGED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path if name.endswith("png") else tmp_path / name)


def test_a_bomb_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive, an IDX file and a MATLAB file that declare more than the memory there is."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=2**30))
    bomb(tmp_path / "a.npz")
    (tmp_path / "a.idx").write_bytes(bytes([0, 0, 8, 2]) + struct.pack(">II", 10, 2**31))
    for name in ("a.npz", "a.idx"):
        with pytest.raises(InputError, match=r"declares [\d,.]+ GiB, more than this machine's 1.0 GiB of memory"):
            read(tmp_path / name)


def test_an_endless_line_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a gzip file of a few bytes may hold; it declares no size that could be trusted."""
    monkeypatch.setattr("pipeline.reading.formats.text.LONGEST", 2**16)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1," + b"0" * 2**24))
    with pytest.raises(InputError, match=r"a.csv.gz has a line of 65,536 characters or more"):
        read(tmp_path / "a.csv.gz")


def test_images_are_of_one_size(tmp_path: Path) -> None:
    pictures(tmp_path / "a", VALUES)
    Image.fromarray(np.zeros((4, 3), dtype=np.uint8)).save(tmp_path / "a/004b.png")
    with pytest.raises(InputError, match=r"004b.png is 3 x 4 pixels, grey, but .*000.png is 3 x 2 pixels, grey"):
        read(tmp_path / "a")
    (tmp_path / "a/004b.png").unlink()
    Image.fromarray(np.zeros((2, 3, 4), dtype=np.uint8)).save(tmp_path / "a/005.png")
    with pytest.raises(InputError, match=r"005.png: its pixels are RGBA; save it grey or as RGB"):
        read(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        Image.fromarray(np.full((2, 3, 3), [1, 2, 3], dtype=np.uint8)).save(file)
    assert read(tmp_path / "a").iloc[0].tolist() == [1, 2, 3] * 6
