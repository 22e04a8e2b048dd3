"""What a model makes of missing values: p(y_missing | y_observed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.distributions.noise import draws, generator
from vae.distributions.vectors import VectorDistribution
from vae.evidence.density import paired
from vae.evidence.estimate import Advance, example_ids, ignore, require_samples, rows_per_chunk

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel


@dataclass(frozen=True)
class Imputation:
    """What N rows with missing values are filled in with.

    Attributes:
        mean: E[y_missing | y_observed], and the observed values themselves, (N, D).
        draws: From p(y_missing | y_observed), and the observed values themselves, (M, N, D).
        effective_sample_size: (sum w)^2 / sum w^2 of a row's S weights, (N,); float64. Below 20 mean and draws rest on little.
    """

    mean: Tensor
    draws: Tensor
    effective_sample_size: Tensor


@torch.no_grad()
def impute(
    vae: LatentModel,
    y: Tensor,
    S: int = 1000,
    M: int = 100,
    *,
    seed: int = 0,
    ids: Tensor | None = None,
    advance: Advance = ignore,
) -> Imputation:
    """Fill in the missing values (NaN) of rows y by importance sampling.

    With z_s ~ q(z|y_observed) and w_s proportional to p(y_observed|z_s) p(z_s) / q(z_s|y_observed), the mean is the
    self-normalised sum of w_s E[y_missing|z_s], and a draw is one from p(y_missing|z_s) with z_s resampled by its weight
    (Mattei and Frellsen 2019, "MIWAE", eq. 11-12). Both are consistent as S grows, for any q that covers the posterior.

    Args:
        vae: The model; of the likelihood ``mixed``, with inputs that may be missing.
        y: Rows, shape (N, D).
        S: Latents per row.
        M: Draws per row.
        seed: Of the noise.
        ids: Example ids, integers (N,), which address the noise; positions by default.
        advance: Called with the number of rows done.

    Raises:
        ValueError: If S or M is below 1, or a value is not one that the likelihood is for.
    """
    require_samples(S)
    require_samples(M, "draws")
    y = vae.as_rows(y)
    ids = example_ids(ids, len(y))
    parts = []
    for rows, their_ids in zip(y.split(chunk := rows_per_chunk(vae, S)), ids.split(chunk), strict=True):
        parts.append(_impute(vae, rows, S, M, seed, their_ids))
        advance(len(rows))
    return join(parts)


def join(parts: Sequence[Imputation]) -> Imputation:
    """Of all rows, from those of consecutive chunks of them."""
    means, draws, sizes = zip(*((part.mean, part.draws, part.effective_sample_size) for part in parts), strict=True)
    return Imputation(torch.cat(means), torch.cat(draws, dim=1), torch.cat(sizes))


@torch.no_grad()
def log_likelihood_given_rest(
    vae: LatentModel, y: Tensor, S: int = 1000, *, seed: int = 0, ids: Tensor | None = None, advance: Advance = ignore
) -> Tensor:
    """Log p(y_d | the other observed values) of each value, (N, D), float64, in nats; NaN where it is missing.

    How odd each value is in its row: log sum_s w_s p(y_d|z_s), where z_s and w_s are drawn and weighted without y_d, as in
    `impute`. The values of a row do not add up to log p(y). Of columns whose total is given, it is given that total too.

    Args:
        vae: The model; of the likelihood ``mixed``, with inputs that may be missing.
        y: Rows, shape (N, D).
        S: Latents per value.
        seed: Of the noise.
        ids: Example ids, integers (N,), which address the noise; positions by default.
        advance: Called with the number of rows done.

    Raises:
        ValueError: If S is below 1, or a value is not one that the likelihood is for.
    """
    require_samples(S)
    y = vae.as_rows(y)
    ids = example_ids(ids, len(y))
    parts = []
    for rows, their_ids in zip(y.split(chunk := rows_per_chunk(vae, S)), ids.split(chunk), strict=True):
        noise = _noise(vae, rows, S, seed, their_ids)
        parts.append(torch.stack([_given_rest(vae, rows, d, noise) for d in range(y.shape[1])], dim=1))
        advance(len(rows))
    return torch.cat(parts)


def _given_rest(vae: LatentModel, y: Tensor, d: int, noise: Tensor) -> Tensor:
    """log p of column d given the others, (N,): the decoder's output serves for a draw's weight and for the column both."""
    others = y.index_fill(1, torch.tensor([d], device=y.device), torch.nan)
    q = vae.inference(others)
    of_weights, of_column = [], []
    for z in q.transform(noise).split(paired(vae.generative, y).draws):
        p = vae.generative(z)
        of_others = p.log_prob_columns(others)
        of_weights.append((of_others.sum(dim=-1) + vae.prior().log_prob(z) - q.log_prob(z)).double())
        of_column.append((p.log_prob_columns(y) - of_others).sum(dim=-1))
    log_p = (torch.cat(of_weights).log_softmax(dim=0) + torch.cat(of_column)).logsumexp(dim=0)
    return log_p.masked_fill(y[:, d].isnan(), torch.nan)


def _noise(vae: LatentModel, y: Tensor, S: int, seed: int, ids: Tensor) -> Tensor:
    """What latents of rows (N, D) are made from, (S, N, K)."""
    return torch.cat(list(draws(seed, "imputation", ids, S, vae.card.latent_size, like=y)))


def _impute(vae: LatentModel, y: Tensor, S: int, M: int, seed: int, ids: Tensor) -> Imputation:
    """Of rows that fit into memory together."""
    q, prior, log_likelihood = vae.inference(y), vae.prior(), paired(vae.generative, y)
    z = q.transform(_noise(vae, y, S, seed, ids))
    weights = (log_likelihood(z) + prior.log_prob(z) - q.log_prob(z)).double().softmax(dim=0)
    mean = (weights[..., None] * vae.generative(z).mean).sum(dim=0).to(y.dtype)
    drawn = []
    for n, i in enumerate(ids.tolist()):
        noise = generator(seed, "imputed", i, device=y.device)
        chosen = torch.multinomial(weights[:, n], M, replacement=True, generator=noise)
        p: VectorDistribution = vae.generative(z[:, n][chosen])
        drawn.append(p.sample(generator=noise))
    mean, draws = (torch.where(y.isnan(), filled, y) for filled in (mean, torch.stack(drawn, dim=1)))
    return Imputation(mean, draws, 1 / weights.square().sum(dim=0))
