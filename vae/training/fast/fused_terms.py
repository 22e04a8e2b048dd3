"""The terms of the ELBO as one operation for each network while it trains: q(z|y) with its draws, and log p(y|z).

By autograd they would be chains of thirty small operations, which take longer than the products of a small network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vae.distributions.vectors import LOG_2_PI
from vae.likelihoods import Likelihood

if TYPE_CHECKING:
    from vae.training.fast.fused import Fused


class Encode(torch.autograd.Function):
    """Draws z_s = mean + stddev * noise_s of `vae.model.posteriors.DiagonalGaussian`, and its part in the ELBO.

    Mean, and stddev by `vae.model.posteriors.as_stddev` from s, are the network's output f = (mean, s).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameter: Tensor, network: Fused, noise: Tensor, closed_form: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows (N, input_dim), noise (S, N, K) -> z (S, N, K), the part of q, and mean and stddev (N, K), which are constant.

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
        """By the rows, if it is asked for. d stddev / ds is stddev / max(stddev, 1)."""
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
        return ctx.network.backward(ctx.passed, gradient, to_rows=ctx.needs_input_grad[0]), None, None, None, None


def _kl(mean: Tensor, stddev: Tensor) -> Tensor:
    """Kingma and Welling 2014, appendix B."""
    parts = stddev.log().addcmul_(mean, mean, value=-0.5).addcmul_(stddev, stddev, value=-0.5)
    return parts.sum(dim=-1).neg_().sub_(stddev.shape[-1] / 2)


def _log_density(noise: Tensor, stddev: Tensor) -> Tensor:
    constant = stddev.log().sum(dim=-1).add_(stddev.shape[-1] / 2 * LOG_2_PI)
    return torch.linalg.vecdot(noise, noise).mul_(-0.5).sub_(constant)


class Decode(torch.autograd.Function):
    """log p(y|z_s), by a likelihood that `differentiates`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, parameter: Tensor, network: Fused, likelihood: Likelihood, y: Tensor) -> Tensor:
        """Latents (S, N, K) and rows (N, D) -> (S, N)."""
        f, ctx.passed = network.forward(z.reshape(-1, z.shape[-1]))
        log_prob, ctx.by_f = likelihood.log_prob_and_gradient(f.view(*z.shape[:-1], -1), y)
        ctx.network = network
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """By the latents, if it is asked for."""
        by_f, ctx.by_f = ctx.by_f, None  # which has many numbers
        by_f.mul_(gradient[..., None])
        by_z = ctx.network.backward(ctx.passed, by_f.flatten(end_dim=-2), to_rows=ctx.needs_input_grad[0])
        return None if by_z is None else by_z.view(*gradient.shape, -1), None, None, None, None
