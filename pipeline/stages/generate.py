"""Samples in the data's own units, and pictures of samples, reconstructions and the latent space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from pipeline.base.compute import use_threads
from pipeline.base.files import RESULTS
from pipeline.figures.generated import draw_images, draw_table
from pipeline.model.loading import load_model
from pipeline.params.generate import GenerateParams
from pipeline.stages.job import running
from pipeline.tables.schema import load_schema, load_split
from pipeline.tables.slices import some_of
from vae.model.latent_model import Generated

SHOWN = 10_000  # test rows, which pictures show as well as more
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False, lineterminator="\n"),
    ".tsv": lambda table, path: table.to_csv(path, sep="\t", index=False, lineterminator="\n"),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
    ".npy": lambda table, path: np.save(path, table.to_numpy(dtype=np.float64)),
}


def main() -> None:
    """Draw rows from the trained model, write them as the data was, and draw them beside the test rows."""
    with running("generate", GenerateParams) as job:
        schema = load_schema()
        use_threads(1)
        vae = load_model(schema)
        generated = cast(Generated, vae.generate(job.params.generate.samples, seed=job.params.seed, full=True))
        samples, test = generated.y.numpy(), load_split("test")
        shown = np.asarray(test[some_of(len(test), SHOWN, job.params.seed)])
        with job.outputs() as (folder,):
            WRITERS[schema.format](schema.table(samples), folder / f"samples{schema.format}")
            draw = draw_images if schema.shape else draw_table
            draw(vae, schema, samples, shown, folder)
    print(f"generated {len(samples)} samples: {RESULTS / 'generate'}/samples{schema.format} and pictures beside it")
