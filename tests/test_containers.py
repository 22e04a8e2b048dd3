"""Files in ZIP archives and by xz, and what is no table: read as what is in them, or refused with what to do."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.foretelling.excerpt import COUNTED
from pipeline.reading.formats import reader, reader_of
from tests.test_readers import ANNDATA, VALUES, data_of, idx, read, saved

TEXT = reader.frame(VALUES).to_csv(index=False).encode()


def zipped(*names: str, content: bytes = TEXT, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "xz of several streams": lambda content: lzma.compress(content[:9]) + lzma.compress(content[9:]),
    "gzip": gzip.compress,
    "gzip of several members": lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
    "bzip2": bz2.compress,
    "zip": lambda content: zipped("a.csv", content=content),
    "zip, stored": lambda content: zipped("a.csv", content=content, how=zipfile.ZIP_STORED),
    "zip by bzip2": lambda content: zipped("a.csv", content=content, how=zipfile.ZIP_BZIP2),
    "zip by lzma": lambda content: zipped("a.csv", content=content, how=zipfile.ZIP_LZMA),
    "zip of a folder": lambda content: zipped("a/", "a/b/", "a/b/c.data", content=content),
    "zip of macOS": lambda content: zipped("a.csv", "__MACOSX/._a.csv", ".DS_Store", content=content),
    "zip that leads out": lambda content: zipped("../../../outside.csv", content=content),
}


@pytest.mark.parametrize("how", PACKED)
def test_a_single_file_is_read_packed(how: str, tmp_path: Path) -> None:
    """Whatever it is called; nothing is written, and its rows are counted."""
    for number, content in enumerate((TEXT, idx(VALUES))):
        path = tmp_path / f"packed {number}"
        path.write_bytes(PACKED[how](content))
        assert np.array_equal(read(path).astype(int), VALUES)
        assert COUNTED[reader_of(path)](path, data_of(path)) == len(VALUES)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "packed 0", tmp_path / "packed 1"]
    assert not (tmp_path / "../../../outside.csv").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(*[st.text("ab1é ,;\"'", min_size=1, max_size=4)] * 2), min_size=1, max_size=30),
    how=st.sampled_from(sorted(PACKED)),
)
def test_packing_changes_no_cell(rows: list[tuple[str, str]], how: str, tmp_path: Path) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("x", "y"), *rows])
    (tmp_path / "plain").write_bytes(text.getvalue().encode())
    (tmp_path / "packed").write_bytes(PACKED[how](text.getvalue().encode()))
    assert read(tmp_path / "packed").equals(read(tmp_path / "plain"))


def damage(how: str, cut: int, change: tuple[int, int] | None, path: Path) -> None:
    """A packed file without its last bytes, or with another byte somewhere, is read whole or refused."""
    content = bytearray(PACKED[how](TEXT))
    if change is None:
        del content[-min(cut, len(content) - 1) :]
    else:
        content[change[0] % len(content)] = change[1]
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert np.array_equal(read(path).astype(int), VALUES)


DAMAGE = {
    "how": st.sampled_from(sorted(PACKED)),
    "cut": st.integers(1, 300),
    "change": st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 255)),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**DAMAGE)
def test_what_is_damaged_is_read_whole_or_refused(how: str, cut: int, change: tuple[int, int] | None, tmp_path: Path) -> None:
    damage(how, cut, change, tmp_path / "packed")


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**DAMAGE)
def test_much_that_is_damaged_is_read_whole_or_refused(
    how: str, cut: int, change: tuple[int, int] | None, tmp_path: Path
) -> None:
    damage(how, cut, change, tmp_path / "packed")


def test_an_endless_file_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a few bytes become, no more than a line of it is in memory."""
    monkeypatch.setattr("pipeline.reading.formats.text.LONGEST", 2**16)
    content = b"a,b\n1," + b"0" * 2**24
    for name, packed in (("a.zip", zipped("a.csv", content=content)), ("a.xz", lzma.compress(content))):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(InputError, match=rf"{name} has a line of 65,536 characters or more"):
            read(tmp_path / name)


def encrypted() -> bytes:
    """An archive that says of its file that it is encrypted."""
    content = bytearray(zipped("a.csv"))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    return bytes(content)


def of_another_method() -> bytes:
    """An archive compressed as Windows does with large files."""
    content = bytearray(zipped("a.csv"))
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + place] = 9
    return bytes(content)


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("a.csv")
        info.size = len(TEXT)
        archive.addfile(info, io.BytesIO(TEXT))
    return file.getvalue()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(VALUES).save(file, kind)
    return file.getvalue()


def feather() -> bytes:
    file = io.BytesIO()
    table = pa.Table.from_pandas(reader.frame(VALUES))
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


UNPACK = "unpack it, and name the file or folder that was in it"
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "several files": ("a.zip", zipped("a.csv", "b.csv", ".c.csv"), r"is a ZIP archive of 2 files \(a.csv, b.csv\); unpack it"),
    "many files": ("a.zip", zipped(*[f"{n}.csv" for n in range(9)]), r"of 9 files \(0.csv, .*7.csv, \.\.\.\); unpack it"),
    "no file": ("a.zip", zipped(), "is an empty ZIP archive; get the file again"),
    "no file but hidden ones": ("a.zip", zipped(".DS_Store"), "is an empty ZIP archive; get the file again"),
    "encrypted": ("a.zip", encrypted(), "a.csv is encrypted in it; unpack it with its password, and name that file"),
    "another method": ("a.zip", of_another_method(), "cannot be decompressed: .*; unpack it, and name the file that"),
    "packed array": ("a.npy.gz", gzip.compress(saved(VALUES)), f"is compressed by gzip, and Npy is not read so; {UNPACK}"),
    "packed HDF5": ("a.zip", zipped("a.h5ad", content=ANNDATA), f"is compressed by zip, and AnnData is not read so; {UNPACK}"),
    "packed twice": ("a.zip", zipped("a.csv.gz", content=gzip.compress(TEXT)), f"is compressed twice; {UNPACK}"),
    "zip in gzip": ("a.gz", gzip.compress(zipped("a.csv")), f"is compressed twice; {UNPACK}"),
    "xlsx": ("a.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), "is a workbook; save the sheet as CSV or Parquet"),
    "ods": ("a.ods", zipped("mimetype", "content.xml"), "is a workbook; save the sheet as CSV or Parquet"),
    "xls": ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "save the sheet as CSV or Parquet"),
    "tar": ("a.tar", tarred(), f"is a tar archive; {UNPACK}"),
    "tar.gz": ("a.tar.gz", gzip.compress(tarred()), f"is a tar archive; {UNPACK}"),
    "7z": ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(60), f"is a 7z archive; {UNPACK}"),
    "rar": ("a.rar", b"Rar!\x1a\x07\0" + bytes(60), f"is a RAR archive; {UNPACK}"),
    "Z": ("a.Z", b"\x1f\x9d" + bytes(60), f"is compressed by compress; {UNPACK}"),
    "pickle": ("a.pkl", pickle.dumps(VALUES), "is a pickle, which is not loaded, as it could execute code; save arrays"),
    "feather": ("a.feather", feather(), "is an Arrow or Feather file; save the table as Parquet"),
    "sqlite": ("a.db", b"SQLite format 3\0" + bytes(60), "is an SQLite database; save the table as CSV or Parquet"),
    **{
        kind: (f"a.{kind}", picture(kind), "is one picture, and rows are the pictures of a folder; set data.path to (.*)$")
        for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp")
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_is_named(case: str, tmp_path: Path) -> None:
    name, content, message = REFUSED[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    if "one picture" in message:  # the folder that it names is read
        assert len(read(Path(str(raised.value).partition("set data.path to ")[2]))) == 1


@pytest.mark.parametrize("case", ["several files", "many files", "packed array", "packed twice", "tar", "tar.gz"])
def test_what_is_unpacked_is_read(case: str, tmp_path: Path) -> None:
    """As each message says."""
    name, content, _ = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            archive.extractall(tmp_path)  # noqa: S202
    elif ".tar" in name:
        with tarfile.open(tmp_path / name) as archive:
            archive.extractall(tmp_path, filter="data")
    else:
        (tmp_path / "a.npy").write_bytes(gzip.decompress(content))
    (tmp_path / name).unlink()
    path = sorted(file for file in tmp_path.iterdir() if not file.name.startswith("."))[0]
    assert np.array_equal(read(path).astype(int), VALUES)


def test_names_in_a_text_are_not_taken_for_a_magic(tmp_path: Path) -> None:
    """Such as BMI, which begins as a bitmap does."""
    for name in ("BMI", "MM", "II", "GIF", "Rar", "RIFF", "7z", "PK", "SQLite", "ARROW1"):
        path = tmp_path / f"{name}.csv"
        path.write_text(f"{name},b\n1,2\n3,4\n")
        assert list(read(path).columns) == [name, "b"]
