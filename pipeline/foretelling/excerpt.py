"""How many rows there are, found without reading them all, and some of them, prepared as the stage prepares all."""

from __future__ import annotations

import math
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.params.data import Data
from pipeline.reading.columns.kept import KeptBlocks
from pipeline.reading.columns.passes import surveyed
from pipeline.reading.formats import raw_files, reader_of
from pipeline.reading.formats.anndata import AnnData, cells
from pipeline.reading.formats.arrays import Idx, Matlab, Npy, Npz
from pipeline.reading.formats.hdf5 import MatlabHdf5, hdf5, variable
from pipeline.reading.formats.images import Pictures, pictures_in
from pipeline.reading.formats.layout import axes
from pipeline.reading.formats.parquet import Parquet, parts_of
from pipeline.reading.formats.reader import Reader, chosen, opened, packing
from pipeline.reading.formats.text import TabSeparated, Text
from pipeline.reading.preparation import prepare
from pipeline.tables.schema import PROBABILITIES, SPLITS, Schema, load_probabilities, load_split
from pipeline.tables.statistics import Array

CELLS, FEWEST, MOST = 2**20, 256, 2**13  # values of an excerpt, and its rows at least and at most
LEAST_SHARE = 0.1  # of the time that an excerpt takes, that goes with its rows
TEXT = 2**22  # bytes of a text that are looked at


@dataclass(frozen=True)
class Excerpt:
    """Some rows of the data, prepared.

    Attributes:
        schema: What was found of them.
        arrays: Their prepared values by split, and, where steps of the training draw zeros and ones, the probabilities.
        rows: How many there are of each split in all of the data, about.
        seconds: That it takes to prepare all.
    """

    schema: Schema
    arrays: Mapping[str, Array]
    rows: Mapping[str, int]
    seconds: float

    @classmethod
    def of(cls, data: Data, seed: int, folder: Path) -> Excerpt:
        """Read and prepare some rows.

        Args:
            data: The params.
            seed: Of the split and the noise.
            folder: Where the arrays go; it exists.

        Raises:
            InputError: If these rows are not as they should be.
        """
        files = raw_files(data)
        counts = [COUNTED[reader_of(file.path)](file.path, file.data) for file in files]
        N, width = sum(counts), head(files[0].path, files[0].data, 1, folder).shape[1]
        n, few = min(N, MOST, max(FEWEST, CELLS // width)), min(N, FEWEST)
        at_first, _ = _prepared(data, seed, folder, [math.ceil(count * few / N) for count in counts])
        seconds, schema = _prepared(data, seed, folder, [math.ceil(count * n / N) for count in counts])
        more = max(seconds - at_first, LEAST_SHARE * seconds) / max(1, n - few)  # for a row
        whole = N / sum(schema.rows.values())
        rows = {split: math.ceil(count * whole) for split, count in schema.rows.items()}
        arrays: dict[str, Array] = {split: np.array(load_split(split, folder)) for split in SPLITS}
        if (probabilities := load_probabilities(folder)) is not None:
            arrays[PROBABILITIES] = np.array(probabilities)
        return cls(schema, arrays, rows, seconds + (N - n) * more)

    def repeated(self, name: str, count: int) -> Array:
        """So many rows of one of the arrays: its own, again and again."""
        rows = self.arrays[name]
        return rows[np.arange(count) % len(rows)]


def head(path: Path, data: Data, rows: int, folder: Path) -> pd.DataFrame:
    """The first rows of a file, as its reader gives them; of a text, from a file of its first lines in ``folder``."""
    reader = reader_of(path)
    if issubclass(reader, Text):
        lines = _beginning(path)[: rows + data.header]
        path = folder / f"head{reader.suffix}"
        path.write_bytes(b"".join(lines))
    frames, missing = [], rows
    for batch in reader.batches(path, data):
        frames.append(batch[:missing])
        missing -= len(frames[-1])
        if not missing:
            break
    return pd.concat(frames, ignore_index=True)


def _prepared(data: Data, seed: int, folder: Path, counts: list[int]) -> tuple[float, Schema]:
    """The seconds that it takes to prepare so many rows of each file, whose arrays go to the folder, and their schema."""
    begin = time.perf_counter()
    files = list(zip(raw_files(data), counts, strict=True))
    frames = [head(file.path, file.data, count, folder) for file, count in files]
    places = [-1 if file.split is None else SPLITS.index(file.split) for file, _ in files]
    labels = np.repeat(np.array(places, dtype=np.int8), [len(frame) for frame in frames])
    table = surveyed([(pd.concat(frames, ignore_index=True), labels)], data, KeptBlocks(folder))
    schema, _ = prepare(table, data, seed, folder)
    return time.perf_counter() - begin, schema


# ---- how many rows, by format


def _rows(path: Path, sizes: Sequence[int], data: Data) -> int:
    return int(sizes[axes(path, sizes, data)[0]])


def _beginning(path: Path) -> list[bytes]:
    """The first lines of a text, whole ones."""
    with opened(path) as file:
        lines = file.read(TEXT).splitlines(keepends=True)
        return lines[:-1] if file.read(1) else lines


def _of_text(path: Path, data: Data) -> int:
    """As many as its first lines, or as there would be if all were as long as these."""
    lines = _beginning(path)
    text = b"".join(lines)
    size = len(text) if packing(path) is None else len(zlib.compress(text))
    whole = len(text) < TEXT // 2 or size >= path.stat().st_size
    return max(1, round(len(lines) * (1 if whole else path.stat().st_size / size)) - data.header)


def _of_idx(path: Path, data: Data) -> int:
    with opened(path) as file:
        return int(struct.unpack(">I", file.read(8)[4:])[0])


def _of_npz(path: Path, data: Data) -> int:
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        with archive.open(f"{chosen(path, keys, data)}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return _rows(path, read(file)[0], data)


def _of_matlab(path: Path, data: Data) -> int:
    from scipy.io import whosmat

    shapes = {name: shape for name, shape, _ in whosmat(path)}
    return _rows(path, shapes[chosen(path, list(shapes), data)], data)


def _of_hdf5(path: Path, data: Data) -> int:
    with hdf5(path, "MATLAB 7.3") as file:
        return _rows(path, variable(path, file, data).shape[::-1], data)


def _of_anndata(path: Path, data: Data) -> int:
    with hdf5(path, "AnnData") as file:
        return cells(file)


COUNTED: Mapping[type[Reader], Callable[[Path, Data], int]] = {
    Parquet: lambda path, data: sum(pq.read_metadata(part).num_rows for part in parts_of(path)),
    Npy: lambda path, data: _rows(path, np.load(path, mmap_mode="r", allow_pickle=False).shape, data),
    Npz: _of_npz,
    Idx: _of_idx,
    Matlab: _of_matlab,
    MatlabHdf5: _of_hdf5,
    AnnData: _of_anndata,
    Pictures: lambda path, data: len(pictures_in(path)),
    TabSeparated: _of_text,
    Text: _of_text,
}
