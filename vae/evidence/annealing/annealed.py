"""Annealed importance sampling, forward and in reverse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.evidence.annealing.hmc import Transition
from vae.evidence.annealing.path import Path, Point, path_of
from vae.evidence.annealing.temperatures import Annealing, ChainNoise
from vae.evidence.annealing.tuning import tune_step_sizes
from vae.evidence.estimate import Advance, Estimate, example_ids, ignore, require_samples, rows_per_chunk
from vae.evidence.from_posterior import join
from vae.evidence.weights import LogWeights

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel

LEAST_CHAIN_SHARE = 1 / 4  # of the chains, that a reliable row's are worth


def annealed_importance_sampling(
    vae: LatentModel,
    y: Tensor,
    S: int = 16,
    *,
    annealing: Annealing | None = None,
    seed: int = 0,
    stream: str = "annealing",
    ids: Tensor | None = None,
    advance: Advance = ignore,
) -> Estimate:
    """Log of the mean over S chains of their annealing weights (Neal 2001; Wu, Burda, Salakhutdinov and Grosse 2017).

    A chain starts at a draw of q(z|y) or p(z) and moves by Hamiltonian transitions through densities that end at p(y, z); its
    weight is an unbiased estimate of p(y). A lower bound of log p(y) in expectation, tighter with more temperatures. Two
    temperatures are importance sampling (or, from the prior, prior sampling with each example's own draws). Costs
    N * S * temperatures * leapfrog_steps gradients of the generative network.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        S: Chains per example.
        annealing: Temperatures, leapfrog steps, start and step sizes.
        seed: Of the noise.
        stream: Of the noise: runs of different streams are independent. The one by default starts at q with the draws of
            importance sampling.
        ids: Example ids, integers (N,), which address the noise; positions by default.
        advance: Called with the number of (row, temperature) pairs done, for a progress bar.

    Raises:
        ValueError: If S is below 1, a setting is out of range, or a value of y is not finite.
    """
    require_samples(S, "chains")
    y, annealing = vae.as_rows(y), _tuned(vae, annealing or Annealing(), seed)
    return _run(vae, y, S, annealing, (seed, stream), example_ids(ids, len(y)), None, advance)


def reverse_annealing(
    vae: LatentModel,
    y: Tensor,
    z: Tensor,
    S: int = 16,
    *,
    annealing: Annealing | None = None,
    seed: int = 0,
    stream: str = "reverse",
    ids: Tensor | None = None,
    advance: Advance = ignore,
) -> Estimate:
    """Minus the log of the mean over S chains of inverse weights, annealing from z ~ p(z|y) (Grosse et al. 2015).

    An upper bound of log p(y) in expectation, where each z is an exact draw from the posterior: that which made y, so that it
    works on rows simulated from the model alone. The chains of a row share its z.

    Args:
        vae: The model.
        y: Rows simulated from the model, shape (N, D).
        z: The latents that made them, shape (N, K).
        S: Chains per example.
        annealing: As in `annealed_importance_sampling`.
        seed: Of the noise.
        stream: Of the noise.
        ids: Example ids, integers (N,), which address the noise; positions by default.
        advance: Called with the number of (row, temperature) pairs done.

    Raises:
        ValueError: As `annealed_importance_sampling`.
    """
    require_samples(S, "chains")
    y, annealing = vae.as_rows(y), _tuned(vae, annealing or Annealing(), seed)
    if z.shape != (len(y), vae.card.latent_size):
        raise ValueError(f"z must have shape ({len(y)}, {vae.card.latent_size}), a latent for each row; got {tuple(z.shape)}")
    inverse = _run(vae, y, S, annealing, (seed, stream), example_ids(ids, len(y)), z.to(y), advance)
    return replace(inverse, log_likelihood=-inverse.log_likelihood, leave_one_out=-inverse.leave_one_out)


def _tuned(vae: LatentModel, annealing: Annealing, seed: int) -> Annealing:
    ready = annealing.step_sizes or not annealing.ranges
    return annealing if ready else tune_step_sizes(vae, annealing=annealing, seed=seed)


@torch.no_grad()
def _run(
    vae: LatentModel,
    y: Tensor,
    S: int,
    annealing: Annealing,
    address: tuple[int, str],
    ids: Tensor,
    z: Tensor | None,
    advance: Advance,
) -> Estimate:
    """Forward from the start, or in reverse from the latents z (N, K) with inverse weights; noise of a seed and a stream."""
    seed, stream = address
    chunk = rows_per_chunk(vae, S)
    parts = []
    for first in range(0, len(y), chunk):
        rows = slice(first, first + chunk)
        path = path_of(vae, y[rows], annealing.start, annealing.widen)
        noise = ChainNoise(path, seed, stream, ids[rows], S)
        begin = path.start.transform(noise.start()) if z is None else z[rows].expand(S, -1, -1)
        parts.append(_anneal(path, path.at(path.position(begin)), annealing, noise, seed, reverse=z is not None))
        advance(len(y[rows]) * annealing.temperatures)
    return join(parts)


def _anneal(path: Path, point: Point, annealing: Annealing, noise: ChainNoise, seed: int, *, reverse: bool) -> Estimate:
    log_weights = torch.zeros(point.log_joint.shape, dtype=torch.float64, device=point.z.device)
    acceptance = torch.zeros(annealing.ranges, point.z.shape[1], dtype=torch.float64, device=point.z.device)
    counts = acceptance[:, :1].clone()
    for t, difference in _increments(annealing.betas, reverse=reverse):
        log_weights += difference * point.log_ratio.double()
        if t is not None:
            r = annealing.range_of(t)
            transition = Transition(path, annealing.betas[t], annealing.step_size(t, seed), annealing.leapfrog_steps)
            point, accepted = transition(point, noise.at(t))
            acceptance[r] += accepted.double().mean(dim=0)
            counts[r] += 1
    weights = LogWeights(log_weights.shape[1], len(log_weights), log_weights.device)
    weights.add(-log_weights if reverse else log_weights)
    ends = _ends(path, point, log_weights)
    return replace(
        weights.estimate(),
        acceptance=acceptance / counts,
        ends=ends,
        rounding=ends[0, -1].abs() * torch.finfo(point.z.dtype).eps,
        least_effective_sample_size=len(log_weights) * LEAST_CHAIN_SHARE,
    )


def _ends(path: Path, point: Point, log_weights: Tensor) -> Tensor:
    """Means and variances over chains of what tells apart the places where they end, (2, K + 2, N)."""
    z = path.latents(point.z)
    log_prior = path.prior.log_prob(z)
    log_likelihood = point.log_ratio + path.start.log_prob(z) - log_prior  # whatever the positions are
    features = torch.cat([z, log_prior[..., None], log_likelihood[..., None]], dim=-1).double()
    weights = log_weights.softmax(dim=0)[..., None]
    mean = (weights * features).sum(dim=0)
    variance = (weights * (features - mean).square()).sum(dim=0) / (1 - weights.square().sum(dim=0))
    return torch.stack([mean, variance]).mT.contiguous()


def _increments(betas: list[float], *, reverse: bool) -> Iterator[tuple[int | None, float]]:
    """Pairs of a difference of beta and the temperature whose transition follows it; none follows the last.

    Forward a weight takes beta_t - beta_{t-1} and moves at beta_t; in reverse the same, backwards.
    """
    T = len(betas)
    order = range(T - 1, 0, -1) if reverse else range(1, T)
    for t in order:
        moves = t - 1 if reverse else t
        yield (moves if 0 < moves < T - 1 else None), betas[t] - betas[t - 1]
