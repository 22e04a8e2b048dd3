"""Where the ELBO loses: the family of q, or the network that chooses within it (Cremer, Li and Duvenaud 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae.distributions.latent import exact_kl
from vae.distributions.noise import DRAWS_PER_BLOCK, draws, per_example
from vae.evidence.density import paired
from vae.evidence.estimate import Advance, example_ids, ignore, rows_per_chunk
from vae.evidence.lower_bound import parts_of_bound

if TYPE_CHECKING:
    from vae.model.conditionals import Posterior
    from vae.model.latent_model import LatentModel

DRAWS_PER_STEP = 8
STEPS_PER_BLOCK = DRAWS_PER_BLOCK // DRAWS_PER_STEP
LEARNING_RATE = 0.02


@dataclass(frozen=True)
class Gap:
    """log p(y) - ELBO(q) per example in two parts, each (N,) in nats.

    Attributes:
        approximation: log p(y) - ELBO(q*), q* the best member of the family for that example.
        amortisation: ELBO(q*) - ELBO(q): what the inference network loses against q*. Sampled, so it may be negative.
    """

    approximation: Tensor
    amortisation: Tensor


def inference_gap(
    vae: LatentModel,
    y: Tensor,
    log_likelihood: Tensor,
    *,
    steps: int = 400,
    S: int = 512,
    seed: int = 0,
    ids: Tensor | None = None,
    advance: Advance = ignore,
) -> Gap:
    """Split log p(y) - ELBO(q) into what the family and what the inference network costs.

    q* is found per example by Adam on the features that the posterior is made from, starting at the network's; both ELBOs are
    then taken from the same S fresh draws.

    Args:
        vae: The model.
        y: Rows, shape (N, D).
        log_likelihood: The best estimate of log p(y), shape (N,).
        steps: Of the optimisation.
        S: Fresh draws for the two ELBOs.
        seed: Of the noise.
        ids: Example ids, integers (N,), which address the noise; positions by default.
        advance: Called with the number of rows done.

    Raises:
        ValueError: If a value of y is not finite, or there is not one id a row.
    """
    y = vae.as_rows(y)
    ids = example_ids(ids, len(y))
    chunk = rows_per_chunk(vae, DRAWS_PER_STEP)
    amortised, optimal = [], []
    for rows, their_ids in zip(y.split(chunk), ids.split(chunk), strict=True):
        with torch.no_grad():
            features = vae.inference.features(rows)
        best = _optimise(vae, rows, features, steps, seed, their_ids)
        with torch.no_grad():
            amortised.append(_elbo(vae, rows, features, S, seed, their_ids))
            optimal.append(_elbo(vae, rows, best, S, seed, their_ids))
        advance(len(rows))
    best_elbo = torch.cat(optimal)
    return Gap(log_likelihood - best_elbo, best_elbo - torch.cat(amortised))


def join(parts: Sequence[Gap]) -> Gap:
    """Of all rows, from those of consecutive chunks of them."""
    return Gap(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Gap)))


def _optimise(vae: LatentModel, y: Tensor, features: Tensor, steps: int, seed: int, ids: Tensor) -> Tensor:
    features = features.clone().requires_grad_()
    optimizer = torch.optim.Adam([features], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    log_likelihood, prior = paired(vae.generative, y), vae.prior()
    for step in range(steps):
        block, position = divmod(step, STEPS_PER_BLOCK)
        if not position:
            noise = per_example(seed, "local optimum", ids, block, (DRAWS_PER_BLOCK, vae.card.latent_size), like=y)
        draws = noise[position * DRAWS_PER_STEP : (position + 1) * DRAWS_PER_STEP]
        q: Posterior = vae.inference.posterior(features)
        z = q.transform(draws)
        kl = exact_kl(q, prior) if vae.has_closed_form_kl else (q.log_prob(z) - prior.log_prob(z)).mean(dim=0)
        loss = -(log_likelihood(z).mean(dim=0) - kl).sum()
        (features.grad,) = torch.autograd.grad(loss, features)
        optimizer.step()
        schedule.step()
    return features.detach()


def _elbo(vae: LatentModel, y: Tensor, features: Tensor, S: int, seed: int, ids: Tensor) -> Tensor:
    blocks = draws(seed, "gap", ids, S, vae.card.latent_size, like=y)
    reconstruction, kl = parts_of_bound(vae, vae.inference.posterior(features), y, blocks)
    return reconstruction - kl
