"""Score the rows of a file with a trained model: log p of each row, and what each of its values has to do with that.

Writes a table with a line per row: index, log_likelihood, effective_sample_size, and for each column of a table
reconstruction_NAME and, where the model takes missing values, given_rest_NAME (see docs/data.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.base.bar import progress_bar
from pipeline.base.command import command
from pipeline.base.errors import InputError
from pipeline.base.files import MODELS
from pipeline.cluster.connection import scheduler_address
from pipeline.evaluation.per_value import value_parts
from pipeline.evaluation.workers import Call, Workers, workers_here
from pipeline.model.loading import check_support, load_model
from pipeline.params.data import LAYOUTS, Data
from pipeline.reading.columns.apply import Application
from pipeline.reading.formats import read_blocks
from pipeline.scoring.odd_rows import Summary
from pipeline.tables.labels import condition, nats
from pipeline.tables.row_files import writing
from pipeline.tables.schema import Schema, load_schema
from pipeline.tables.statistics import Array
from vae.evidence import importance_sampling
from vae.model.latent_model import LatentModel

SUFFIXES = (".csv", ".parquet")
ROWS = 1024  # at a time
PARTS_SAMPLES = 100  # of the reconstruction's parts


def main(arguments: argparse.Namespace) -> None:
    """Score the file."""
    target = arguments.out or Path(f"{arguments.file.name.split('.')[0]}.scores.parquet")
    _check(target, arguments)
    scorer = Scorer.of(arguments)
    data = Data.model_validate(
        {
            "path": str(arguments.file),
            "key": arguments.key,
            "delimiter": arguments.delimiter,
            "header": not arguments.no_header,
            "shape": scorer.schema.shape and list(scorer.schema.shape),
            "layout": arguments.layout,
            "fractions": {"train": 0.7, "valid": 0.15, "test": 0.15},
        }
    )
    summary = Summary()
    blocks = scorer.blocks(read_blocks(data))
    with (
        progress_bar(transient=True) as bar,
        writing(target) as writer,
        Workers(workers_here(arguments.workers), scorer, scheduler_address(arguments.cluster)) as workers,
    ):
        task = bar.add_task("scoring rows", total=None, note="")
        for scores, raw in workers.in_order(blocks):
            summary.add(scores, raw)
            writer.write(scores)
            bar.advance(task, len(scores))
    totals = scorer.vae.generative.likelihood.totals(len(scorer.schema.columns))
    summary.show(target, scorer.samples, nats(condition(totals, scorer.schema.names)).replace("example", "row"))


def _check(target: Path, arguments: argparse.Namespace) -> None:
    if target.suffix not in SUFFIXES:
        raise InputError(f"--out: {target} must end in .csv or .parquet")
    for name, number in (("samples", arguments.samples), ("workers", arguments.workers)):
        if number is not None and number < 1:
            raise InputError(f"--{name} must be at least 1; got {number}")
    if target.exists() and arguments.file.exists() and target.samefile(arguments.file):
        raise InputError(f"--out: {target} is the file that is read; name another one")


@dataclass(frozen=True)
class Scorer:
    """Scores rows.

    Attributes:
        vae: The model.
        schema: Of its data.
        samples: S of importance sampling.
        seed: Of all noise.
        parts: Whether the columns' parts are computed.
    """

    vae: LatentModel
    schema: Schema
    samples: int
    seed: int
    parts: bool

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Scorer:
        """As the command line says."""
        schema = load_schema(arguments.model)
        vae = load_model(schema, arguments.model)
        return cls(vae, schema, arguments.samples, arguments.seed, arguments.parts and schema.shape is None)

    def blocks(self, frames: Iterable[tuple[pd.DataFrame, Any]]) -> Iterator[tuple[str, Call]]:
        """The rows of a file, some at a time, checked and ready to be scored."""
        first = 0
        for frame, _ in frames:
            y, ids = Application(self.schema, self.seed).prepared(frame, first)
            check_support(self.vae.generative.likelihood, self.schema, y, first)
            for row, column in () if self._takes_gaps else np.argwhere(np.isnan(y))[:1]:
                raise InputError(
                    f"column {self.schema.names[column]!r} has no value in row {first + row + 1}, and the model was trained "
                    "on complete rows only; fill it, or train with train.hide above 0"
                )
            for begin in range(0, len(y), ROWS):
                some = slice(begin, begin + ROWS)
                raw = frame[self.schema.names][some]
                call = partial(Scorer.scored, y=y[some], raw=raw, ids=torch.from_numpy(ids[some]), first=first + begin)
                yield f"rows from {first + begin + 1} on", call
            first += len(frame)

    def scored(self, y: Array, raw: pd.DataFrame, ids: Tensor, first: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The scores of rows from the ``first`` on, prepared and raw, and the raw ones; noise follows from the ids."""
        estimate = importance_sampling(self.vae, self.vae.as_rows(y), self.samples, seed=self.seed, ids=ids)
        columns = {
            "index": np.arange(first, first + len(y)),
            "log_likelihood": estimate.log_likelihood.cpu().numpy() + self.schema.log_jacobian(y),
            "effective_sample_size": estimate.effective_sample_size.cpu().numpy(),
        }
        if self.parts:
            samples = self.samples if self._takes_gaps else None
            settings: dict[str, Any] = {"samples": samples, "seed": self.seed, "ids": ids}
            columns |= value_parts(self.vae, y, self.schema, elbo_samples=PARTS_SAMPLES, **settings)
        return pd.DataFrame(columns), raw

    @property
    def _takes_gaps(self) -> bool:
        return any(column.missing for column in self.vae.card.inputs or ())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("file", type=Path, help="rows with the columns that the model was trained on")
    made.add_argument("--model", type=Path, default=MODELS, help="folder with what train has made (default: models)")
    made.add_argument("--out", type=Path, help="the table to write, .parquet or .csv (default: FILE.scores.parquet)")
    made.add_argument("--samples", type=int, default=1000, help="S of importance sampling (default: 1000)")
    made.add_argument("--no-parts", dest="parts", action="store_false", help="log p of rows only, without their parts")
    made.add_argument("--seed", type=int, default=0, help="of all noise (default: 0)")
    made.add_argument("--threads", type=int, help=argparse.SUPPRESS)  # of earlier versions; it changes nothing
    made.add_argument(
        "--workers", type=int, help="processes, whose number changes no digit (default: as many as there are cores)"
    )
    made.add_argument("--cluster", help="address of a Dask scheduler, whose workers score in their place (docs/scale.md)")
    made.add_argument("--key", help="the array to take, where a file has several")
    made.add_argument("--layout", choices=LAYOUTS, help="the axes of an array of pictures (data.layout)")
    made.add_argument("--delimiter", help="between the fields of a text")
    made.add_argument("--no-header", action="store_true", help="the first line of the text has no names")
    return made


if __name__ == "__main__":
    sys.exit(command("score", parser(), main))
