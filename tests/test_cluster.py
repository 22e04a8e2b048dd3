"""The column program on a Dask cluster of this machine: the bytes of the path without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.dvc.formats import md5
from pipeline.reading.columns.cluster import ADDRESS
from pipeline.stages import prepare
from tests.test_program import COLUMNS, big_table
from tests.workspace import write_params, write_table

distributed = pytest.importorskip("dask.distributed")
pytestmark = pytest.mark.filterwarnings("default")  # of the cluster's own


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def prepared(**changes: Any) -> dict[str, str]:
    write_params(Path(), **{"data.path": "data/raw/parts", "data.columns": COLUMNS, **changes})
    prepare.main()
    return {path.name: md5(path) for path in Path("data/prepared").iterdir()}


@pytest.mark.parametrize("changes", [{}, {"data.split": {"stratify": "ward"}, "data.exclude": ["sex"]}])
def test_a_cluster_makes_the_same_bytes(
    changes: dict[str, Any], address: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files whose row groups are cut elsewhere than the blocks."""
    folder = workspace / "data/raw/parts"
    folder.mkdir(parents=True)
    for number, (first, last) in enumerate(((0, 10), (10, 300), (300, 500))):
        big_table()[first:last].to_parquet(folder / f"{number}.parquet", index=False, row_group_size=70)
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 64)  # of the caller, who cuts the blocks
    alone = prepared(**changes)
    monkeypatch.setenv(ADDRESS, address)
    assert prepared(**changes) == alone


def test_errors_of_workers_are_the_users(address: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, address)
    frame = big_table().astype({"visits": float})
    frame.loc[333, "visits"] = 1.5
    write_table(workspace, frame, "table.parquet")
    columns = {"data.columns": {"visits": "count"}}
    write_params(workspace, **{"data.path": "data/raw/table.parquet", **columns})
    with pytest.raises(InputError, match="column 'visits', row 334: a count must be a whole number"):
        prepare.main()
    write_table(workspace, frame)
    write_params(workspace)
    with pytest.raises(InputError, match=r"a cluster reads Parquet only; data/raw/table.csv is not"):
        prepare.main()
    assert not (workspace / "data/prepared").exists()
