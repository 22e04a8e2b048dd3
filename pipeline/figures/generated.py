"""The pictures of the samples and of the latent space, from a model and the test rows."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from pipeline.figures.samples import SampleGrids, latent_scatter, marginals, pairs
from pipeline.tables.schema import Schema
from pipeline.tables.statistics import Array
from vae.model.latent_model import LatentModel

STEPS = 11
MOST_DIMENSIONS = 8  # that are varied, where rows are images


def draw_images(vae: LatentModel, schema: Schema, samples: Array, test: Array, folder: Path) -> None:
    """Draw samples, reconstructions and the latent space to a folder, for prepared rows (N, D) that are images."""
    pictures = SampleGrids(cast(tuple[int, int, int], schema.shape), schema.units, schema.limits(test))
    pictures.sample_grid(schema.to_raw(samples), folder / "samples.png")
    means = _decode(vae, schema, vae.infer(test[:12])[0])
    pictures.reconstructions(schema.to_raw(test[:12]), means, folder / "reconstructions.png")
    axis = torch.linspace(-3, 3, STEPS, dtype=vae.as_rows(test).dtype)
    if vae.card.layers[-1] == 2:
        plane = torch.stack(torch.meshgrid(axis, -axis, indexing="xy"), dim=-1)
        pictures.latent_plane(_decode(vae, schema, vae.below(plane)), folder / "latent.png")
        return
    spread = _top_means(vae, test).std(dim=0).numpy()
    dimensions = _most_used(spread)[:MOST_DIMENSIONS]
    z = torch.zeros(len(dimensions), STEPS, vae.card.layers[-1], dtype=axis.dtype)
    for row, dimension in enumerate(dimensions):
        z[row, :, dimension] = axis
    labels = [f"{_name(vae, d)} (sd {spread[d]:.2f})" for d in dimensions]
    pictures.traversal(_decode(vae, schema, vae.below(z)), labels, folder / "latent.png")


def draw_table(vae: LatentModel, schema: Schema, samples: Array, test: Array, folder: Path) -> None:
    """Draw samples beside test rows, and the latent space, to a folder, for prepared rows (N, D) of a table."""
    drawn, data = schema.table(samples), schema.table(test)
    marginals(data, drawn, schema, folder / "marginals.png")
    numbers = [column.name for column in schema.columns if column.kind in ("continuous", "count")]
    if len(numbers) > 1:
        pairs(data[numbers], drawn[numbers], folder / "pairs.png")
    if vae.card.layers[-1] > 1:
        means = _top_means(vae, test)
        first, second = _most_used(means.std(dim=0).numpy())[:2]
        latent_scatter(means[:, [first, second]].numpy(), (_name(vae, first), _name(vae, second)), folder / "latent.png")


@torch.no_grad()
def _decode(vae: LatentModel, schema: Schema, z: torch.Tensor) -> Array:
    """f_w(z) in raw units; the mean of the noise that dequantisation added is taken off."""
    raw = schema.to_raw(vae.generative(z).mean.numpy(), snap=False)
    return raw - np.array([column.step or 0.0 for column in schema.columns]) / 2


def _top_means(vae: LatentModel, test: Array) -> torch.Tensor:
    """Posterior means of test rows in the layer of latents whose prior does not depend on others: the only one, mostly."""
    return vae.infer(test)[0][:, -vae.card.layers[-1] :]


def _most_used(spread: Array) -> list[int]:
    """The dimensions from the one along which posterior means vary most."""
    return [int(d) for d in np.argsort(-spread, kind="stable")]


def _name(vae: LatentModel, dimension: int) -> str:
    """What a dimension of the top layer is called: z3, or, in the second layer, z2,3."""
    layers = len(vae.card.layers)
    return f"z{dimension + 1}" if layers == 1 else f"z{layers},{dimension + 1}"
