"""Samples in the data's own units, and pictures of samples, reconstructions and the latent space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from pipeline.base.compute import use_threads
from pipeline.base.files import RESULTS
from pipeline.figures import samples as figures
from pipeline.model.loading import load_model
from pipeline.params.generate import GenerateParams
from pipeline.stages.job import running
from pipeline.tables.schema import Schema, load_schema, load_split
from pipeline.tables.statistics import Array
from vae.model.latent_model import Generated, LatentModel

STEPS = 11
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False, lineterminator="\n"),
    ".tsv": lambda table, path: table.to_csv(path, sep="\t", index=False, lineterminator="\n"),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
    ".npy": lambda table, path: np.save(path, table.to_numpy(dtype=np.float64)),
}


def main() -> None:
    """Run the stage."""
    with running("generate", GenerateParams) as job:
        schema = load_schema()
        use_threads(job.params.threads)
        vae = load_model(schema)
        generated = cast(Generated, vae.generate(job.params.generate.samples, seed=job.params.seed, full=True))
        samples = generated.y.numpy()
        with job.outputs() as (folder,):
            WRITERS[schema.format](schema.table(samples), folder / f"samples{schema.format}")
            if schema.shape:
                _images(vae, schema, schema.to_raw(samples), folder)
            else:
                _tables(vae, schema, schema.table(samples), folder)
    print(f"generated {len(samples)} samples: {RESULTS / 'generate'}/samples{schema.format} and pictures beside it")


def _images(vae: LatentModel, schema: Schema, samples: Array, folder: Path) -> None:
    test = np.array(load_split("test"))
    originals = schema.to_raw(test)
    limits = (float(np.nanmin(originals)), float(np.nanmax(originals)))
    pictures = figures.Pictures(cast(tuple[int, int, int], schema.shape), schema.units, limits)
    pictures.sample_grid(samples, folder / "samples.png")
    pictures.reconstructions(originals[:12], _decode(vae, schema, vae.infer(test[:12])[0]), folder / "reconstructions.png")
    axis = torch.linspace(-3, 3, STEPS, dtype=vae.as_rows(test).dtype)
    if vae.card.layers[-1] == 2:
        plane = torch.stack(torch.meshgrid(axis, -axis, indexing="xy"), dim=-1)
        pictures.latent_plane(_decode(vae, schema, vae.below(plane)), folder / "latent.png")
    else:
        dimensions, spread = _most_used(vae)
        z = torch.zeros(len(dimensions), STEPS, vae.card.layers[-1], dtype=axis.dtype)
        for row, dimension in enumerate(dimensions):
            z[row, :, dimension] = axis
        labels = [f"{_name(vae, d)} (sd {spread[d]:.2f})" for d in dimensions]
        pictures.traversal(_decode(vae, schema, vae.below(z)), labels, folder / "latent.png")


def _tables(vae: LatentModel, schema: Schema, samples: pd.DataFrame, folder: Path) -> None:
    test = schema.table(np.array(load_split("test")))
    figures.marginals(test, samples, schema, folder / "marginals.png")
    numbers = [column.name for column in schema.columns if column.kind in ("continuous", "count")]
    if len(numbers) > 1:
        figures.pairs(test[numbers], samples[numbers], folder / "pairs.png")
    if vae.card.layers[-1] > 1:
        (first, second), _ = _most_used(vae, 2)
        labels = (_name(vae, first), _name(vae, second))
        figures.latent_scatter(_top_means(vae)[:, [first, second]].numpy(), labels, folder / "latent.png")


@torch.no_grad()
def _decode(vae: LatentModel, schema: Schema, z: torch.Tensor) -> Array:
    """f_w(z) in raw units; the mean of the noise that dequantisation added is taken off."""
    raw = schema.to_raw(vae.generative(z).mean.numpy(), snap=False)
    return raw - np.array([column.step or 0.0 for column in schema.columns]) / 2


def _most_used(vae: LatentModel, most: int = 8) -> tuple[list[int], Array]:
    """The top layer's dimensions whose posterior means vary most over the test rows, and the standard deviations of all."""
    spread = _top_means(vae).std(dim=0).numpy()
    return [int(d) for d in np.argsort(-spread, kind="stable")[:most]], spread


def _top_means(vae: LatentModel) -> torch.Tensor:
    """Of the test rows, in the layer of latents whose prior does not depend on others: the only one, mostly."""
    return vae.infer(np.array(load_split("test")))[0][:, -vae.card.layers[-1] :]


def _name(vae: LatentModel, dimension: int) -> str:
    """Of a dimension of the top layer: z3, or, in the second layer, z2,3."""
    layers = len(vae.card.layers)
    return f"z{dimension + 1}" if layers == 1 else f"z{layers},{dimension + 1}"
