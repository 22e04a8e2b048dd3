"""The terms of the ELBO as one operation for each network while it trains: q(z|y) with its draws, and log p(y|z).

By autograd they would be chains of thirty small operations, which take longer than the products of a small network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vae.distributions.bernoulli import bernoulli_log_prob, slices
from vae.distributions.vectors import LOG_2_PI, DiagonalNormal, UnitNormal
from vae.likelihoods import Bernoulli, Likelihood
from vae.model.posteriors import DiagonalGaussian
from vae.model.terms import Networks, Terms
from vae.objectives import ELBO, IWAE, PIWAE, BetaELBO, DReG, Objective, StickingTheLanding
from vae.options.registry import KL
from vae.training.fast.fused import Fused

Density = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # see `bernoulli`


def terms_of_steps(objective: Objective, fused: Mapping[nn.Module, Fused]) -> Callable[..., Terms]:
    """`Terms`, or what makes the same ones faster, for steps that minimise an objective with these networks fused."""
    return partial(FusedTerms, fused, kl_part(objective)) if fused else Terms


def kl_part(objective: Objective) -> KL | None:
    """The part of the KL through which alone an objective's gradient reaches q(z|y); None where there may be other ways."""
    if type(objective) in (ELBO, BetaELBO):
        part: KL = objective.kl  # type: ignore[attr-defined]
        return part
    return "monte_carlo" if type(objective) in (IWAE, PIWAE, DReG, StickingTheLanding) else None


class FusedTerms(Terms):
    """`Terms` whose q(z|y) with its draws, and whose log p(y|z), are one operation each where that is known.

    Args:
        fused: Networks that are.
        part: See `kl_part`. No gradient passes through ``q`` itself, unless it is None.
        vae, y, S, generator: As in `Terms`.
    """

    def __init__(
        self,
        fused: Mapping[nn.Module, Fused],
        part: KL | None,
        vae: Networks,
        y: Tensor,
        S: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.prior = vae.prior()
        encoder, decoder = fused.get(vae.inference.network), fused.get(vae.generative.network)
        known = isinstance(vae.inference.posterior, DiagonalGaussian)
        known &= part == "monte_carlo" or (part == "closed_form" and isinstance(self.prior, UnitNormal))
        if encoder is None or not known:
            self.q = vae.inference(y)
            self.z = self.q.rsample((S,), generator)
        else:
            x, closed_form = vae.inference.encode(y), part == "closed_form"
            noise = torch.randn(S, len(y), vae.inference.posterior.widest, generator=generator, dtype=x.dtype, device=x.device)
            self.z, kl, mean, stddev = Encode.apply(encoder, encoder.parameter, x, noise, closed_form)
            self.q = DiagonalNormal(mean, stddev)
            self.__dict__["closed_form" if closed_form else "log_posterior_of_draws"] = kl
        density = DENSITIES.get(type(vae.generative.likelihood))
        if decoder is None or density is None:
            self.log_likelihood_of_draws = vae.generative(self.z).log_prob(y)
        else:
            z = vae.generative.reads(self.z)
            self.log_likelihood_of_draws = Decode.apply(decoder, decoder.parameter, z, density, y)


class Encode(torch.autograd.Function):
    """Draws z_s = mean + stddev * noise_s of `vae.model.posteriors.DiagonalGaussian`, and its part in the ELBO.

    Mean, and stddev by `vae.model.posteriors.as_stddev` from s, are the network's output f = (mean, s).
    """

    @staticmethod
    def forward(
        ctx: Any, network: Fused, parameter: Tensor, x: Tensor, noise: Tensor, closed_form: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take rows (N, input_dim) and noise (S, N, K) to z (S, N, K), the part, and, as constants, mean and stddev (N, K).

        The part is KL(q(z|y) || N(0, I)), (N,), in closed form, or log q(z_s|y), (S, N), in which the mean cancels.
        """
        f, ctx.passed = network.forward(x)
        mean, s = f.chunk(2, dim=-1)
        stddev = s.clamp(max=0).exp_().add_(s.relu())
        part = _kl(mean, stddev) if closed_form else _log_density(noise, stddev)
        ctx.network, ctx.closed_form, ctx.parts = network, closed_form, (mean, stddev, noise)
        ctx.mark_non_differentiable(mean, stddev)
        ctx.set_materialize_grads(False)
        return torch.addcmul(mean, stddev, noise), part, mean, stddev

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_z: Tensor | None, by_part: Tensor | None, *constant: None) -> tuple[Tensor | None, ...]:
        """Return the gradient by the rows, if it is asked for. d stddev / ds is stddev / max(stddev, 1)."""
        mean, stddev, noise = ctx.parts
        by_z = torch.zeros_like(noise) if by_z is None else by_z
        by_mean, by_s = by_z.sum(dim=0), (by_z * noise).sum(dim=0)
        if by_part is None:
            by_s.mul_(stddev)
        elif ctx.closed_form:
            by_kl = by_part[:, None]
            by_mean.addcmul_(mean, by_kl)
            by_s.addcmul_(stddev, by_kl).mul_(stddev).sub_(by_kl)
        else:
            by_s.mul_(stddev).sub_(by_part.sum(dim=0)[:, None])
        gradient = torch.cat([by_mean, by_s.div_(stddev.clamp(min=1))], dim=-1)
        by_x = ctx.network.backward(ctx.passed, gradient, to_rows=ctx.needs_input_grad[2])
        return None, None, by_x, None, None


def _kl(mean: Tensor, stddev: Tensor) -> Tensor:
    """KL(q(z|y) || N(0, I)), (N,) (Kingma and Welling 2014, appendix B)."""
    parts = stddev.log().addcmul_(mean, mean, value=-0.5).addcmul_(stddev, stddev, value=-0.5)
    return parts.sum(dim=-1).neg_().sub_(stddev.shape[-1] / 2)


def _log_density(noise: Tensor, stddev: Tensor) -> Tensor:
    """log q(z_s|y), (S, N)."""
    constant = stddev.log().sum(dim=-1).add_(stddev.shape[-1] / 2 * LOG_2_PI)
    return torch.linalg.vecdot(noise, noise).mul_(-0.5).sub_(constant)


class Decode(torch.autograd.Function):
    """log p(y|z_s), by one of the `DENSITIES`."""

    @staticmethod
    def forward(ctx: Any, network: Fused, parameter: Tensor, z: Tensor, density: Density, y: Tensor) -> Tensor:
        """Take latents (S, N, K) and rows (N, D) to log p(y|z_s), (S, N)."""
        f, ctx.passed = network.forward(z.reshape(-1, z.shape[-1]))
        log_prob, ctx.by_f = density(f.view(*z.shape[:-1], -1), y)
        ctx.network = network
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient by the latents, if it is asked for."""
        by_f, ctx.by_f = ctx.by_f, None  # which has many numbers
        by_f.mul_(gradient[..., None])
        by_z = ctx.network.backward(ctx.passed, by_f.flatten(end_dim=-2), to_rows=ctx.needs_input_grad[2])
        return None, None, None if by_z is None else by_z.view(*gradient.shape, -1), None, None


def bernoulli(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """log p(y|z) (S, N) of rows y (N, D), and its gradient by network outputs f (S, N, D), in their place."""
    factor = y - 1
    parts = []
    for logits in slices(f, y):  # that are still in a core's cache when their gradient is computed
        parts.append(bernoulli_log_prob(logits, factor))
        torch.sub(y, logits.sigmoid_(), out=logits)
    return parts[0] if len(parts) == 1 else torch.cat(parts), f


DENSITIES: Mapping[type[Likelihood], Density] = {Bernoulli: bernoulli}  # of likelihoods that learn no numbers of their own
