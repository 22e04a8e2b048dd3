"""The yardstick: what a person would write in plain PyTorch, with tensors in memory and fused Adam, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.harness import LATENT, PIXELS


class Loop:
    """A Bernoulli VAE 784-200-200-50 and back, its loop over the rows ``y`` (N, D), and nothing beside it.

    Args:
        y: Rows of zeros and ones.
        batch_size: Rows per step.
        samples: None for the ELBO with one sample and the KL in closed form; K for the importance-weighted bound.
        widths: Of the hidden layers, from the data on.
        latent_dim: K of the latent.
    """

    def __init__(
        self,
        y: Tensor,
        batch_size: int,
        samples: int | None = None,
        widths: tuple[int, ...] = (200, 200),
        latent_dim: int = LATENT,
    ) -> None:
        self.y, self.batch_size, self.samples = y, batch_size, samples
        D = y.shape[1]
        self.encoder = feedforward(D, *widths, 2 * latent_dim).to(y.device)
        self.decoder = feedforward(latent_dim, *widths[::-1], D).to(y.device)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def epoch(self, pause: int) -> Iterator[None]:
        """All rows once, with a pause after each so many steps."""
        for step, rows in enumerate(torch.randperm(len(self.y), device=self.y.device).split(self.batch_size), 1):
            batch = self.y[rows]
            loss = self.elbo(batch) if self.samples is None else self.importance_weighted(batch, self.samples)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if step % pause == 0:
                yield

    def elbo(self, y: Tensor) -> Tensor:
        """The negative ELBO, averaged."""
        mean, log_variance = self.encoder(y).chunk(2, dim=-1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        reconstruction = binary_cross_entropy_with_logits(self.decoder(z), y, reduction="sum")
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        return (reconstruction + kl) / len(y)

    def importance_weighted(self, y: Tensor, K: int) -> Tensor:
        """The negative bound of Burda et al. (2016), averaged; constants of the two normals cancel."""
        mean, log_variance = self.encoder(y).chunk(2, dim=-1)
        noise = torch.randn(K, *mean.shape, device=y.device)
        z = mean + (0.5 * log_variance).exp() * noise
        targets = y.expand(K, -1, -1)
        log_likelihood = -binary_cross_entropy_with_logits(self.decoder(z), targets, reduction="none").sum(dim=-1)
        log_prior, log_posterior = -0.5 * z.square().sum(dim=-1), -0.5 * (noise.square() + log_variance).sum(dim=-1)
        log_weights = log_likelihood + log_prior - log_posterior
        return -(log_weights.logsumexp(dim=0) - math.log(K)).mean()


def feedforward(*widths: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


class Products:
    """The matrix products of an epoch of `Loop` alone: forwards, and backwards for weights and inputs.

    Args:
        N, batch_size, samples: As in `Loop`.
        device: Where.
    """

    def __init__(self, N: int, batch_size: int, samples: int | None = None, device: str = "cpu") -> None:
        self.steps, S = math.ceil(N / batch_size), samples or 1
        encoder, decoder = [PIXELS, 200, 200, 2 * LATENT], [LATENT, 200, 200, PIXELS]
        self.layers = [*_layers(encoder, batch_size, device), *_layers(decoder, S * batch_size, device)]

    def epoch(self, pause: int) -> Iterator[None]:
        """As many as there are in an epoch, with a pause after those of so many steps."""
        for step in range(1, self.steps + 1):
            for number, (x, weight, gradient) in enumerate(self.layers):
                torch.mm(x, weight.T)
                torch.mm(gradient.T, x)
                if number:  # the rows have no gradient
                    torch.mm(gradient, weight)
            if step % pause == 0:
                yield


def _layers(widths: list[int], rows: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Input, weight and gradient of the output of each layer."""
    for before, after in pairwise(widths):
        shapes = ((rows, before), (after, before), (rows, after))
        x, weight, gradient = (torch.rand(shape, device=device) for shape in shapes)
        yield x, weight, gradient
