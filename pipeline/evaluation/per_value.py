"""What each value has to do with log p of its row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.computations import Work, in_blocks
from pipeline.evaluation.workers import Call
from pipeline.tables.schema import Schema
from pipeline.tables.statistics import Array
from vae.evidence import log_likelihood_given_rest, reconstruction_by_column
from vae.evidence.estimate import rows_per_chunk
from vae.model.latent_model import LatentModel

ROWS = 16  # of a block at least


def value_parts(
    vae: LatentModel, y: Array, schema: Schema, *, elbo_samples: int, samples: int | None, seed: int, ids: Tensor
) -> dict[str, Array]:
    """The parts of each column of rows y (N, D), in nats of the raw data, (N,).

    ``reconstruction_NAME`` is the part of the reconstruction, and ``given_rest_NAME`` log p given the rest of a row.

    Args:
        vae: The model.
        y: Prepared rows.
        schema: Of the data.
        elbo_samples: S of the reconstruction.
        samples: S of log p given the rest; None leaves it out, as one must where the inference network takes no gaps.
        seed: Of the noise.
        ids: Of the rows, (N,), which address the noise.
    """
    raw, rows = schema.log_derivatives(y), vae.as_rows(y)
    parts = {"reconstruction": reconstruction_by_column(vae, rows, elbo_samples, seed=seed, ids=ids)}
    if samples is not None:
        parts["given_rest"] = log_likelihood_given_rest(vae, rows, samples, seed=seed, ids=ids)
    columns = {quantity: part.cpu().numpy() + raw for quantity, part in parts.items()}
    return {f"{quantity}_{name}": part[:, d] for quantity, part in columns.items() for d, name in enumerate(schema.names)}


def value_parts_by_workers(
    work: Work, vae: LatentModel, y: Array, samples: int | None, **settings: Any
) -> Iterator[dict[str, Array]]:
    """The same of many rows, of which positions are the ids, some of them at a time."""

    def call(rows: Tensor) -> Call:
        return partial(value_parts, y=np.asarray(y[rows.numpy()]), samples=samples, ids=rows, **settings)

    most = max(ROWS, rows_per_chunk(vae, samples or 1))
    return work.in_order(in_blocks("each value given its row", torch.arange(len(y)), most, call, list))
