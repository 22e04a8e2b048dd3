"""The ELBO and its parts per example, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.distributions.latent import exact_kl
from vae.distributions.noise import DRAWS_PER_BLOCK, draws
from vae.evidence.density import paired
from vae.evidence.estimate import example_ids, require_samples, rows_per_chunk

if TYPE_CHECKING:
    from vae.model.conditionals import Posterior
    from vae.model.latent_model import LatentModel


@dataclass(frozen=True)
class LowerBound:
    """The ELBO per example and its parts, in nats, each of shape (N,), float64; elbo = reconstruction - kl."""

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """A lower bound of log p(y)."""
        return self.reconstruction - self.kl


@torch.no_grad()
def evidence_lower_bound(vae: LatentModel, y: Tensor, S: int, *, seed: int = 0, ids: Tensor | None = None) -> LowerBound:
    """E_q[log p(y|z)] by S draws z_s ~ q(z|y), and KL(q(z|y) || p(z)).

    The KL is in closed form (Kingma and Welling 2014, eq. 3); where there is none, it is the mean of log q(z_s|y) - log p(z_s)
    over the same draws.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Draws per example.
        seed: Of the draws.
        ids: Example ids, integers (N,), which address the noise; positions by default.

    Raises:
        ValueError: If S is below 1, or there is not one id a row.
    """
    require_samples(S)
    y = vae.as_rows(y)
    ids = example_ids(ids, len(y))
    chunk = rows_per_chunk(vae, DRAWS_PER_BLOCK)
    parts = []
    for rows, their_ids in zip(y.split(chunk), ids.split(chunk), strict=True):
        q = vae.inference(rows)
        blocks = draws(seed, "bound", their_ids, S, q.event_shape[0], like=rows)
        parts.append(parts_of_bound(vae, q, rows, blocks))
    return join([LowerBound(*part) for part in parts])


def join(parts: Sequence[LowerBound]) -> LowerBound:
    """Of all rows, from those of consecutive chunks of them."""
    return LowerBound(torch.cat([part.reconstruction for part in parts]), torch.cat([part.kl for part in parts]))


@torch.no_grad()
def reconstruction_by_column(vae: LatentModel, y: Tensor, S: int, *, seed: int = 0, ids: Tensor | None = None) -> Tensor:
    """E_q[log p(y_d|z)] of each column, (N, D), float64, in nats; 0 where a value is missing.

    A row's sum is the reconstruction of `evidence_lower_bound` with the same arguments, whose draws these are. It tells the
    values that the model finds odd, given the rest of the row.

    Raises:
        ValueError: If S is below 1, or there is not one id a row.
    """
    require_samples(S)
    y = vae.as_rows(y)
    ids = example_ids(ids, len(y))
    parts = []
    for rows, their_ids in zip(y.split(chunk := rows_per_chunk(vae, DRAWS_PER_BLOCK)), ids.split(chunk), strict=True):
        q = vae.inference(rows)
        blocks = draws(seed, "bound", their_ids, S, q.event_shape[0], like=y)
        sums = (vae.generative(q.transform(noise)).log_prob_columns(rows).sum(dim=0, dtype=torch.float64) for noise in blocks)
        parts.append(sum(sums, torch.zeros(rows.shape, dtype=torch.float64, device=y.device)) / S)
    return torch.cat(parts)


def parts_of_bound(vae: LatentModel, q: Posterior, y: Tensor, blocks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """E_q[log p(y|z)] and KL(q || p(z)) of rows y (N, D), each (N,), by blocks (S', N, K) of noise that q makes draws of."""
    prior, log_likelihood, count = vae.prior(), paired(vae.generative, y), 0
    reconstruction, kl = torch.zeros(2, len(y), dtype=torch.float64, device=y.device)
    for noise in blocks:
        z = q.transform(noise)
        count += len(z)
        reconstruction += log_likelihood(z).sum(dim=0, dtype=torch.float64)
        if not vae.has_closed_form_kl:
            kl += (q.log_prob(z) - prior.log_prob(z)).sum(dim=0, dtype=torch.float64)
    return reconstruction / count, exact_kl(q, prior).double() if vae.has_closed_form_kl else kl / count
