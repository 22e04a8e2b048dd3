"""AnnData whose parts do not fit together is refused before any of it is used; what its later versions write is read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.foretelling.excerpt import COUNTED
from pipeline.reading.formats import reader_of
from tests.test_readers import ANNDATA, data_of, read

GENES = [f"gene{number}" for number in range(4)]
COUNTS = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 0, 0], [0, 4, 5, 0], [6, 0, 0, 7]], dtype=np.float64)
PLAIN = {"encoding-type": "array", "encoding-version": "0.2.0"}


def put(file: h5py.Group, name: str, values: Any, kind: str = "array") -> None:
    texts = isinstance(values[0], str) if len(values) else False
    held = file.create_dataset(name, data=values, dtype=h5py.string_dtype() if texts else None)
    held.attrs["encoding-type"] = "string-array" if texts else kind


def group(file: h5py.Group, name: str, kind: str, /, **members: Any) -> h5py.Group:
    made = file.create_group(name)
    made.attrs["encoding-type"] = kind
    for member, values in members.items():
        put(made, member, values)
    return made


def put_matrix(file: h5py.Group, name: str, values: Any) -> None:
    if isinstance(values, np.ndarray):
        put(file, name, values)
        return
    parts = {part: getattr(values, part) for part in ("data", "indices", "indptr")}
    group(file, name, f"{values.format}_matrix", **parts).attrs["shape"] = values.shape


def written(path: Path, values: Any, **obs: Callable[[h5py.Group, str], Any]) -> Path:
    """A file as anndata writes it, with these columns of ``obs``."""
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        put_matrix(file, "X", values)
        group(file, "var", "dataframe", _index=GENES).attrs["_index"] = "_index"
        rows = group(file, "obs", "dataframe", _index=[f"cell{number}" for number in range(len(COUNTS))])
        rows.attrs["_index"] = "_index"
        for name, write in obs.items():
            write(rows, name)
    return path


SPARSE = {"csr": scipy.sparse.csr_array(COUNTS), "csc": scipy.sparse.csc_array(COUNTS)}


@pytest.mark.parametrize("values", [COUNTS, *SPARSE.values()], ids=["dense", *SPARSE])
@pytest.mark.parametrize("kind", [">f8", "<f4", "<i2"])
def test_every_matrix_comes_back(values: Any, kind: str, tmp_path: Path) -> None:
    read_back = read(written(tmp_path / "a.h5ad", values.astype(kind) if isinstance(values, np.ndarray) else values))
    pd.testing.assert_frame_equal(read_back.astype(float), pd.DataFrame(COUNTS, columns=GENES))


def relabelled(file: h5py.File) -> None:
    said = file["X"].attrs
    said["encoding-type"] = {"csr_matrix": "csc_matrix", "csc_matrix": "csr_matrix"}[said["encoding-type"]]


def with_part(name: str, place: int, value: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["X"][name][place] = value

    return change


def cut(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        kept = file["X"][name][:-1]
        del file["X"][name]
        put(file["X"], name, kept)

    return change


def shaped(*sizes: int) -> Callable[[h5py.File], None]:
    return lambda file: file["X"].attrs.__setitem__("shape", sizes)


WRONG: dict[str, tuple[str, Callable[[h5py.File], None], str]] = {
    "index beyond the genes": ("csr", with_part("indices", 2, 9), r"X, row 2: has an index 9, not from 0 to 3"),
    "huge index": ("csr", with_part("indices", 6, 2**30), r"X, row 5: has an index 1073741824, not from 0 to 3"),
    "negative index": ("csr", with_part("indices", 0, -1), r"X, row 1: has an index -1, not from 0 to 3"),
    "index beyond the cells": ("csc", with_part("indices", 4, 5), r"X, column 3: has an index 5, not from 0 to 4"),
    "decreasing": ("csr", with_part("indptr", 4, 1), r"X, row 4: indptr says values 3 to 1 of 7"),
    "beyond the data": ("csr", with_part("indptr", 5, 2**29), r"X, row 5: indptr says values 5 to 536870912 of 7"),
    "negative beginning": ("csr", with_part("indptr", 0, -3), r"X, row 1: indptr says values -3 to 2 of 7"),
    "values before the first": ("csc", with_part("indptr", 0, 1), r"X, column 1: indptr says values 1 to 2 of 7"),
    "CSC called CSR": ("csc", relabelled, r"X has 5 entries in indptr, but 5 rows, which need 6; .* CSR and CSC"),
    "CSR called CSC": ("csr", relabelled, r"X has 6 entries in indptr, but 4 columns, which need 5; .* CSR and CSC"),
    "fewer indices": ("csr", cut("indices"), "X needs a whole number in indices for each of its values"),
    "fewer values": ("csc", cut("data"), "X needs a whole number in indices for each of its values"),
    "another shape": ("csr", shaped(5, 6), r"X has the shape \(5, 6\), but there are 5 cells and 4 genes"),
    "endless shape": ("csc", shaped(2**60, 4), r"X has the shape .*, but there are 5 cells and 4 genes"),
}


@pytest.mark.parametrize("batch", [65_536, 2])
@pytest.mark.parametrize("case", WRONG)
def test_parts_that_do_not_fit_are_named(case: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that used them would end, or add values to other cells."""
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", batch)
    kind, change, message = WRONG[case]
    path = written(tmp_path / "a.h5ad", SPARSE[kind])
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=f"a.h5ad: {message}"):
        read(path)


def of_lists(parts: dict[str, list[int]], count: int, width: int) -> list[list[float]] | None:
    """The lines of these parts by plain lists; None if they are none."""
    starts, places, values = parts["indptr"], parts["indices"], parts["data"]
    if len(starts) != count + 1 or starts[0] or starts != sorted(starts) or starts[-1] > len(values):
        return None
    lines = [[0.0] * width for _ in range(count)]
    for line in lines:
        for place, value in zip(places[starts[0] : starts[1]], values[starts[0] : starts[1]], strict=True):
            if not 0 <= place < width:
                return None
            line[place] += value
        starts = starts[1:]
    return lines


def parts_of(count: int, width: int) -> st.SearchStrategy[dict[str, list[int]]]:
    """Parts of a sparse matrix, of which about half are none."""
    sizes = st.integers(0, 6)
    odd = st.sampled_from([-1, width, 2**31 - 1, -(2**31)])

    def of(size: int) -> st.SearchStrategy[dict[str, list[int]]]:
        place, start = st.integers(0, width - 1), st.integers(0, size)
        starts = st.lists(start, min_size=count - 1, max_size=count - 1).map(lambda inner: [0, *sorted(inner), size])
        return st.fixed_dictionaries(
            {
                "data": st.lists(st.integers(1, 9), min_size=size, max_size=size),
                "indices": st.lists(place, min_size=size, max_size=size) | st.lists(place | odd, min_size=size, max_size=size),
                "indptr": starts | st.lists(start | odd, max_size=count + 2, min_size=1),
            }
        )

    return sizes.flatmap(of)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=parts_of(len(COUNTS), len(GENES)), kind=st.sampled_from(["csr", "csc"]), batch=st.integers(1, 6))
def test_a_sparse_matrix_is_what_lists_make_of_it_or_refused(
    parts: dict[str, list[int]], kind: str, batch: int, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.reading.formats.reader.ROWS", batch)
        path = written(tmp_path / "a.h5ad", np.zeros_like(COUNTS))
        with h5py.File(path, "r+") as file:
            del file["X"]
            held = {name: np.array(values, dtype=np.int32) for name, values in parts.items()}
            group(file, "X", f"{kind}_matrix", **held).attrs["shape"] = COUNTS.shape
        shape = COUNTS.shape if kind == "csr" else COUNTS.shape[::-1]
        expected = of_lists(parts, *shape)
        if expected is None:
            with pytest.raises(InputError, match=r"a.h5ad: X"):
                read(path)
        else:
            assert np.array_equal(read(path), np.array(expected) if kind == "csr" else np.array(expected).T)


NULLABLE: dict[str, tuple[Callable[[h5py.Group, str], Any], list[Any]]] = {
    "nullable-string-array": (
        lambda obs, name: group(obs, name, "nullable-string-array", values=list("aabbc"), mask=[False] * 5),
        list("aabbc"),
    ),
    "nullable-integer": (
        lambda obs, name: group(obs, name, "nullable-integer", values=[2**53 + 1, 2, 2, 3, 3], mask=[False] * 5),
        [2**53 + 1, 2, 2, 3, 3],
    ),
    "nullable-boolean": (
        lambda obs, name: group(obs, name, "nullable-boolean", values=np.array([0, 1, 1, 0, 0], bool), mask=[False] * 5),
        [False, True, True, False, False],
    ),
    "categorical": (
        lambda obs, name: group(
            group(obs, name, "categorical", codes=[0, 0, 1, 1, 1]), "categories", "nullable-string-array",
            values=["a", "b"], mask=[False] * 2,
        ),
        list("aabbb"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NULLABLE)
def test_columns_that_may_have_gaps_are_read(kind: str, tmp_path: Path) -> None:
    """As anndata writes those of pandas 3."""
    write, column = NULLABLE[kind]
    path = written(tmp_path / "a.h5ad", SPARSE["csr"], by=write)
    assert read(path, split={"group": "by"})["by"].tolist() == column


@pytest.mark.parametrize("kind", list(NULLABLE)[:3])
def test_gaps_in_such_columns_are_gaps(kind: str, tmp_path: Path) -> None:
    write, column = NULLABLE[kind]
    path = written(tmp_path / "a.h5ad", SPARSE["csr"], by=write)
    with h5py.File(path, "r+") as file:
        file["obs/by/mask"][1] = True
    held = read(path, split={"group": "by"})["by"]
    assert held.isna().tolist() == [False, True, False, False, False]
    assert held[0] == column[0]


def test_names_that_may_have_gaps_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5ad", SPARSE["csr"])
    with h5py.File(path, "r+") as file:
        for frame, names in (("var", GENES), ("obs", [f"cell{number}" for number in range(5)])):
            del file[frame]["_index"]
            group(file[frame], "_index", "nullable-string-array", values=names, mask=[False] * len(names))
    assert list(read(path).columns) == GENES
    assert COUNTED[reader_of(path)](path, data_of(path)) == 5
    with h5py.File(path, "r+") as file:
        file["var/_index/mask"][2] = True
    with pytest.raises(InputError, match="column 3 has no name; name it"):
        read(path)


def test_raw_counts_have_their_own_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5ad", SPARSE["csr"])
    more = np.hstack([COUNTS, COUNTS[:, :2] + 1])
    with h5py.File(path, "r+") as file:
        raw = group(file, "raw", "raw")
        put_matrix(raw, "X", scipy.sparse.csr_array(more))
        group(raw, "var", "dataframe", name=[f"all{number}" for number in range(6)]).attrs["_index"] = "name"
    held = read(path, key="raw/X")
    pd.testing.assert_frame_equal(held, pd.DataFrame(more, columns=[f"all{number}" for number in range(6)]))
    assert list(read(path).columns) == GENES
    with pytest.raises(InputError, match=r"which are X, raw/X; got 'raw'"):
        read(path, key="raw")


def test_a_file_of_an_earlier_version_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad.gz"
    path.write_bytes(gzip.compress(ANNDATA))
    with pytest.raises(InputError, match="is compressed by gzip, and AnnData is not read so; unpack it, and name the file"):
        read(path)
    (tmp_path / "a.h5ad").write_bytes(gzip.decompress(path.read_bytes()))
    assert len(read(tmp_path / "a.h5ad")) == 7
