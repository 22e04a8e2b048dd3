"""Read the raw table, find the kind of each column, split the rows, and write memory-mappable arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.base.environment import main_repository
from pipeline.base.errors import InputError
from pipeline.base.files import PREPARED
from pipeline.cluster.connection import connected, scheduler_address
from pipeline.dvc.formats import untracked_note
from pipeline.params.data import Data, PrepareParams
from pipeline.reading.columns.cluster import is_parquet, surveyed_by
from pipeline.reading.columns.kept import KeptBlocks, kept_blocks
from pipeline.reading.columns.passes import Table, surveyed
from pipeline.reading.formats import check_files, raw_files, read_blocks
from pipeline.reading.preparation import prepare
from pipeline.reading.schema_table import show
from pipeline.stages.job import running


def main() -> None:
    """Read the table, write its arrays and its schema, and say what was found in it."""
    with running("prepare", PrepareParams) as job:
        data = job.params.data
        refuse_absent(data)
        check_files(data)
        address = scheduler_address(job.cluster)
        with kept_blocks(PREPARED) as blocks, job.outputs(PREPARED) as (_, folder), _read(data, blocks, address) as table:
            schema, kinds = prepare(table, data, job.params.seed, folder)
            schema.save(folder)
        if schema.shape is None:
            show(schema, {name: why for name, (_, why) in kinds.items()})
        rows = ", ".join(f"{count} {split}" for split, count in schema.rows.items())
        print(f"prepared {data.path}: {len(schema.columns)} columns; {rows} rows in {PREPARED}/")
        print("".join(f"  note: {note}\n" for note in schema.notes), end="")


def refuse_absent(data: Data) -> None:
    """Refuse data that the repository has and this copy of it has not, as DVC makes copies of what is kept.

    Raises:
        InputError: Naming the command that keeps it.
    """
    root = main_repository()
    for path, *_ in raw_files(data):
        if not path.exists() and (root / path).exists() and (note := untracked_note(path, root)) is not None:
            raise InputError(f"data.path: {note}, in {root}, then queue it again")


@contextmanager
def _read(data: Data, blocks: KeptBlocks, address: str | None) -> Iterator[Table]:
    """The table that ``data`` names: kept here, or with the workers of a Dask cluster, if its scheduler has an address."""
    if address is not None and is_parquet(data):
        with connected(address) as cluster:
            yield surveyed_by(cluster, data, blocks.folder)
        return
    if address is not None:
        print(f"cluster: {data.path} is not Parquet, which workers can read in parts: this machine prepares it")
    yield surveyed(read_blocks(data), data, blocks)
