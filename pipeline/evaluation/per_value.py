"""What each value has to do with log p of its row."""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor

from pipeline.base.bar import advancing
from pipeline.tables.schema import Schema
from pipeline.tables.statistics import Array
from vae.evidence import log_likelihood_given_rest, reconstruction_by_column
from vae.evidence.estimate import ignore
from vae.model.latent_model import LatentModel


def value_parts(
    vae: LatentModel,
    schema: Schema,
    y: Array,
    *,
    elbo_samples: int,
    samples: int | None,
    seed: int,
    ids: Tensor | None = None,
    bar: bool = False,
) -> dict[str, Array]:
    """The parts of each column of rows y (N, D), in nats of the raw data, (N,).

    ``reconstruction_NAME`` is the part of the reconstruction, and ``given_rest_NAME`` log p given the rest of a row.

    Args:
        vae: The model.
        schema: Of the data.
        y: Prepared rows.
        elbo_samples: S of the reconstruction.
        samples: S of log p given the rest; None leaves it out, as one must where the inference network takes no gaps.
        seed: Of the noise.
        ids: Of the rows, (N,), which address the noise; positions by default.
        bar: Whether to show how many rows' log p given the rest is done.
    """
    raw, rows = schema.log_derivatives(y), vae.as_rows(y)
    parts = {"reconstruction": reconstruction_by_column(vae, rows, elbo_samples, seed=seed, ids=ids)}
    if samples is not None:
        with advancing("each value given its row", len(y)) if bar else nullcontext(ignore) as advance:
            parts["given_rest"] = log_likelihood_given_rest(vae, rows, samples, seed=seed, ids=ids, advance=advance)
    columns = {quantity: part.cpu().numpy() + raw for quantity, part in parts.items()}
    return {f"{quantity}_{name}": part[:, d] for quantity, part in columns.items() for d, name in enumerate(schema.names)}
