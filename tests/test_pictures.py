"""Folders of pictures: which are rows, their pixels, and what is said of the rest."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.foretelling.excerpt import COUNTED
from pipeline.reading.formats import reader_of, unread
from pipeline.reading.formats.images import SUFFIXES, Pictures
from pipeline.stages import prepare
from pipeline.tables.schema import load_index, load_schema
from tests.test_readers import Rows, data_of, parts, read
from tests.workspace import read_table, write_params

GREY = np.random.default_rng(0).integers(0, 256, (12, 2, 3), dtype=np.uint8)
LOSSLESS = [suffix for suffix in SUFFIXES if suffix not in (".jpg", ".jpeg", ".jfif", ".gif", ".webp")]
ORIENTATION = 0x0112
TURNED: dict[int, Callable[[Rows], Rows]] = {  # the pixels that are to be shown, by those in the file
    1: lambda held: held,
    2: lambda held: held[:, ::-1],
    3: lambda held: held[::-1, ::-1],
    4: lambda held: held[::-1],
    5: lambda held: held.swapaxes(0, 1),
    6: lambda held: np.rot90(held, -1),
    7: lambda held: held.swapaxes(0, 1)[::-1, ::-1],
    8: lambda held: np.rot90(held),
}


def save(path: Path, values: Rows, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[ORIENTATION] = orientation
    return made.tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(values: Rows) -> bytes:
    """A picture of 16 bits, (height, width) or with channels, which the library does not write."""
    height, width, channels = (*values.shape, 1)[:3]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff16(values: Rows) -> bytes:
    """Likewise, a TIFF of RGB."""
    height, width, _ = values.shape
    pixels = values.astype("<u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    entries += [(277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 14 + len(pixels)
    bits = struct.pack("<HHH", 16, 16, 16)
    return b"II*\0" + struct.pack("<I", start) + bits + pixels + struct.pack("<H", len(entries)) + tags + bytes(4)


# ---- which files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(suffix: str, tmp_path: Path) -> None:
    for number, values in enumerate(GREY[:4]):
        save(tmp_path / f"{number}{suffix.upper() if number % 2 else suffix}", values)
    held = read(tmp_path)
    assert held.shape[0] == 4
    if suffix in LOSSLESS:
        assert np.array_equal(held, GREY[:4].reshape(4, -1))


def test_pictures_of_several_kinds_are_all_rows(tmp_path: Path) -> None:
    for number, values in enumerate(GREY):
        save(tmp_path / f"{number:02}{LOSSLESS[number % len(LOSSLESS)]}", values)
    assert np.array_equal(read(tmp_path), GREY.reshape(12, -1))
    assert list(unread(data_of(tmp_path))) == []


NAMES = st.text("ab", min_size=1, max_size=2)
FOLDERS = st.sampled_from(["", "cats", "dogs/more", ".ipynb_checkpoints", "__MACOSX/cats", ".git/x"])
OTHERS = st.sampled_from([".png", ".PNG", ".tif", ".txt", ".csv", "", ".npy", ".svg"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.sets(st.tuples(FOLDERS, st.sampled_from(["", "."]), NAMES, OTHERS), min_size=1, max_size=12))
def test_every_file_is_a_row_or_is_named(
    files: set[tuple[str, str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pictures")
    expected = []
    for where, hidden, name, suffix in files:
        path = folder / where / f"{hidden}{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        if suffix.lower() in SUFFIXES:
            Image.fromarray(GREY[0]).save(path, "tiff" if suffix == ".tif" else "png")
            if not hidden and not where.startswith((".", "__")):
                expected.append(path)
    present = [path for path in folder.rglob("*") if path.is_file()]  # two names may be one
    if not expected:
        with pytest.raises(InputError, match="is a folder without Parquet files or images"):
            read(folder)
        return
    data = data_of(folder)
    assert len(read(folder)) == COUNTED[Pictures](folder, data) == len(expected)
    said = list(unread(data))
    assert len(said) == (len(expected) < len(present))
    for note in said:
        counted = note.removeprefix(f"not read in {folder}: ").partition(" (")[0]
        assert sum(int(part.split()[0]) for part in counted.split(", ")) == len(present) - len(expected)


def test_what_is_not_read_is_said_by_prepare(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("data/raw/pictures")
    for number, values in enumerate(np.random.default_rng(0).integers(0, 256, (40, 2, 3), dtype=np.uint8)):
        save(folder / f"{number}.png", values)
    save(folder / ".ipynb_checkpoints" / "0-checkpoint.png", GREY[0])
    (folder / "readme.txt").write_text("of a friend")
    write_params(workspace, **{"data.path": str(folder), "data.shape": [2, 3], "data.dequantize": 1})
    prepare.main()
    note = "not read in data/raw/pictures: 1 hidden, 1 .txt (.ipynb_checkpoints/0-checkpoint.png, readme.txt)"
    assert load_schema().notes[0] == note
    assert f"  note: {note}\n" in capsys.readouterr().out
    assert sum(load_schema().rows.values()) == 40


def test_hidden_tables_are_no_rows(tmp_path: Path) -> None:
    parts(tmp_path / "parts", GREY.reshape(12, -1))
    (tmp_path / "parts/.ipynb_checkpoints").mkdir()
    (tmp_path / "parts/.ipynb_checkpoints/1.parquet").write_bytes((tmp_path / "parts/1.parquet").read_bytes())
    (tmp_path / "parts/_SUCCESS").write_bytes(b"")
    assert len(read(tmp_path / "parts")) == 12
    (note,) = unread(data_of(tmp_path / "parts"))
    assert note.endswith("parts: 1 hidden, 1 without a suffix (.ipynb_checkpoints/1.parquet, _SUCCESS)")


# ---- their pixels


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_pictures_are_turned_as_they_are_shown(orientation: int, suffix: str, tmp_path: Path) -> None:
    """A camera stores how it was held."""
    values = np.kron(GREY[0], np.ones((16, 16), dtype=np.uint8))
    options = {"quality": 100} if suffix == ".jpg" else {}
    save(tmp_path / f"a{suffix}", values, exif=exif(orientation), **options)
    expected = TURNED[orientation](values)
    held = read(tmp_path, shape=list(expected.shape)).to_numpy().reshape(expected.shape)
    assert np.abs(held.astype(int) - expected).max() <= (8 if suffix == ".jpg" else 0)


def test_the_table_of_turns_is_one_of_a_library(tmp_path: Path) -> None:
    """Applied to the turned pixels, each turn gives another picture, and only the first the same."""
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    made = {turn(values).tobytes() + bytes(turn(values).shape) for turn in TURNED.values()}
    assert len(made) == 8


BITS: dict[str, tuple[str, bytes, str]] = {
    "RGB": ("a.png", png16(np.full((2, 3, 3), 257)), "its pixels are RGB of 16 bits; save it grey or as RGB, of 8 bits"),
    "RGB, TIFF": ("a.tif", tiff16(np.full((2, 3, 3), 257)), "its pixels are RGB of 16 bits; .* or all of them as one"),
    "grey": ("a.png", png16(np.full((2, 3), 257)), "its pixels are I;16; save it grey or as RGB, of 8 bits and"),
    "RGBA": ("a.png", png16(np.full((2, 3, 4), 257)), "its pixels are RGBA; save it grey or as RGB"),
    "LA": ("a.png", png16(np.full((2, 3, 2), 257)), "its pixels are (LA|RGBA); save it grey or as RGB"),
}


@pytest.mark.parametrize("case", BITS)
def test_bits_are_not_cut(case: str, tmp_path: Path) -> None:
    """And what the message says mends it."""
    name, content, message = BITS[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path)
    with Image.open(tmp_path / name) as image:
        image.convert("RGB").save(tmp_path / name)
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I", "F"])
def test_pixels_of_another_kind_are_refused(mode: str, tmp_path: Path) -> None:
    with Image.fromarray(GREY[0]) as image:
        image.convert(mode).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=rf"a.tif: its pixels are {mode}(;16)?; save it grey or as RGB, of 8 bits"):
        read(tmp_path)
    with Image.open(tmp_path / "a.tif") as image:
        held = image.convert("L" if mode in ("LA", "I", "F") else "RGB")
    held.save(tmp_path / "a.tif")
    assert len(read(tmp_path)) == 1


@pytest.mark.parametrize(("suffix", "mode"), [(".png", "L"), (".png", "RGB"), (".png", "P"), (".png", "1"), (".gif", "P")])
def test_transparency_without_a_channel_is_refused(suffix: str, mode: str, tmp_path: Path) -> None:
    """A colour that stands for none, as PNG and GIF may name it; one that no pixel has is nothing."""
    whole = Image.fromarray(np.full((2, 3), 255, dtype=np.uint8)).convert(mode)
    key, other = ((255, 255, 255), (1, 2, 3)) if mode == "RGB" else (whole.getpixel((0, 0)), 3)
    whole.save(tmp_path / f"a{suffix}", transparency=key)
    with pytest.raises(InputError, match=rf"a{suffix}: some of its pixels are transparent; save it .* without transparency"):
        read(tmp_path)
    whole.save(tmp_path / f"a{suffix}", **({} if mode == "1" else {"transparency": other}))
    assert set(read(tmp_path).to_numpy().ravel().tolist()) == {255}


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp", ".png"])
def test_pictures_of_several_frames_are_refused(suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(values) for values in GREY[:3]]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=rf"a{suffix} has 3 frames; save each as a picture of its own"):
        read(tmp_path)
    for number, frame in enumerate(frames):
        frame.save(tmp_path / f"{number}{suffix}")
    (tmp_path / f"a{suffix}").unlink()
    assert len(read(tmp_path)) == 3


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Also where the number of their pixels is the same."""
    save(tmp_path / "a.png", GREY[0])
    with pytest.raises(InputError, match=r"data.shape: is \[3, 2\], but .*a.png is \[2, 3\]; set it to that"):
        read(tmp_path, shape=[3, 2])
    for shape in ([2, 3], [2, 3, 1]):
        assert len(read(tmp_path, shape=shape)) == 1


# ---- their folders


def classes(folder: Path, rows: int = 60) -> Rows:
    """Pictures in a folder for each class, twice as many in the second."""
    values = np.random.default_rng(0).integers(0, 256, (rows, 2, 3), dtype=np.uint8)
    for number, row in enumerate(values):
        save(folder / ("cats" if number % 3 == 0 else "dogs") / f"{number:02}.png", row)
    return values


def test_folders_are_a_column_where_it_is_asked_for(tmp_path: Path) -> None:
    classes(tmp_path)
    assert reader_of(tmp_path) is Pictures
    assert "folder" not in read(tmp_path)
    for by in ("group", "stratify", "column"):
        held = read(tmp_path, split={by: "folder"})
        assert held["folder"].tolist() == ["cats"] * 20 + ["dogs"] * 40
        assert held.shape == (60, 7)


def test_folders_are_strata(workspace: Path) -> None:
    """The model sees their pixels only."""
    classes(Path("data/raw/pictures"))
    settings: dict[str, Any] = {"data.path": "data/raw/pictures", "data.shape": [2, 3]}
    settings |= {"data.split": {"stratify": "folder"}}
    settings |= {"data.dequantize": 1, "data.fractions": {"train": 0.5, "valid": 0.25, "test": 0.25}}
    write_params(workspace, **settings)
    with pytest.raises(InputError, match=r"data.split.stratify: folder is no pixel of data.shape; put it into data.exclude"):
        prepare.main()
    write_params(workspace, **settings, **{"data.exclude": ["folder"]})
    prepare.main()
    assert load_schema().names == [str(number) for number in range(6)]
    assert {split: int((load_index(split) < 20).sum()) for split in ("train", "valid", "test")} == {
        "train": 10,
        "valid": 5,
        "test": 5,
    }


def test_folders_may_be_the_splits(workspace: Path) -> None:
    for number, values in enumerate(np.random.default_rng(0).integers(0, 256, (30, 2, 3), dtype=np.uint8)):
        save(Path("data/raw/pictures") / ("train", "train", "test")[number % 3] / f"{number:02}.png", values)
    changes = {"data.path": "data/raw/pictures", "data.dequantize": 1, "data.split": {"column": "folder"}}
    write_params(workspace, **changes)
    prepare.main()
    assert load_schema().rows["test"] == 10
    write_params(workspace, **(changes | {"data.split": None, "data.files": {"train": "train", "test": "test"}}))
    assert read_table(data_of(Path("data/raw/pictures"), files={"train": "train", "test": "test"}))[1].count("test") == 10
