"""Latents in layers: the joint distribution of a first layer, and of others each of which is normal given the one before.

A latent z is the concatenation (z_1, ..., z_L) of its layers, z_1 next to the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Size, Tensor, nn
from torch.func import functional_call
from torch.quasirandom import SobolEngine
from typing_extensions import override

from vae.distributions.latent import LatentDistribution, NormalMixture
from vae.distributions.noise import generator
from vae.distributions.vectors import DiagonalNormal, Shape

MOMENT_DRAWS, MOMENTS_AT_ONCE = 256, 32
BOX_POINTS, REACH = 1024, 9.0


@dataclass(frozen=True)
class Conditional:
    """The distribution of one layer given another's latents: that of a network, times what else is known of the layer.

    Attributes:
        network: From latents (..., K) to a `DiagonalNormal` over the layer.
        evidence: By which its density is multiplied, and normalised again; none by default.
        weights: Of the network, by name, in place of its own.
    """

    network: nn.Module
    evidence: DiagonalNormal | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, z: Tensor) -> DiagonalNormal:
        """The distribution given the other layer's latents z (..., K)."""
        weights = dict(self.weights)
        of_network: DiagonalNormal = functional_call(self.network, weights, (z,)) if weights else self.network(z)
        return of_network if self.evidence is None else product(of_network, self.evidence)

    def detach(self) -> Conditional:
        """The same, through whose parameters no gradient passes; it passes through the other layer's latents."""
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        return Conditional(self.network, self.evidence and self.evidence.detach(), weights)


def product(p: DiagonalNormal, q: DiagonalNormal) -> DiagonalNormal:
    """The normal distribution whose density is proportional to the product of two: precisions add up."""
    share = p.stddev / torch.hypot(p.stddev, q.stddev)  # whose square is the share of q in the precision
    return DiagonalNormal(p.mean + share.square() * (q.mean - p.mean), q.stddev * share)


class Chain(LatentDistribution):
    """p(first) prod p(next | the one before), over the concatenation of the layers.

    Args:
        first: Distribution of the layer that is drawn first, over (..., K_1) if upward, else over (..., K_L).
        steps: Of the following layers, in the order in which they are drawn.
        sizes: K_1, ..., K_L.
        upward: Whether layers are drawn from z_1 to z_L; otherwise from z_L to z_1.
    """

    def __init__(
        self,
        first: DiagonalNormal | LatentDistribution,
        steps: Sequence[Conditional],
        sizes: Sequence[int],
        *,
        upward: bool,
    ) -> None:
        super().__init__(Size((*first.batch_shape, sum(sizes))))
        self._first, self._steps, self._sizes, self._upward = first, tuple(steps), list(sizes), upward

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, shape (...)."""
        layers = self._in_order(value.split(self._sizes, dim=-1))
        total: Tensor = self._first.log_prob(layers[0])
        for step, (before, layer) in zip(self._steps, pairwise(layers), strict=True):
            total = total + step(before).log_prob(layer)
        return total

    @override
    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal ``noise`` of shape (..., K) as draws, layer by layer, differentiably."""
        first, *others = self._in_order(noise.split(self._sizes, dim=-1))
        layers = [self._first.transform(first)]
        for step, following in zip(self._steps, others, strict=True):
            layers.append(step(layers[-1]).transform(following))
        return self._joined(layers)

    @override
    def rsample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws, shape ``sample_shape + (..., K)``; as differentiable as those of the first layer are."""
        layers = [self._first.rsample(sample_shape, generator)]
        for step in self._steps:
            layers.append(step(layers[-1]).rsample((), generator))
        return self._joined(layers)

    def to_noise(self, value: Tensor) -> Tensor:
        """The noise of which `transform` makes latents ``value`` (..., K), where the first layer is normal."""
        layers = self._in_order(value.split(self._sizes, dim=-1))
        given = [self._first, *(step(before) for step, before in zip(self._steps, layers, strict=False))]
        return self._joined([(layer - p.mean) / p.stddev for p, layer in zip(given, layers, strict=True)])

    def with_normal_first(self, widen: float = 1.0) -> Chain:
        """The same, but for a first layer that is normal, of the same mean and so many times the standard deviation."""
        first = DiagonalNormal(self._first.mean, widen * self._first.stddev)
        return Chain(first, self._steps, self._sizes, upward=self._upward)

    def along_means(self, first: Tensor) -> Tensor:
        """Latents (..., K) whose first layer is this, and every following one at its mean given the one before."""
        layers = [first]
        for step in self._steps:
            layers.append(step(layers[-1]).mean)
        return self._joined(layers)

    @override
    def detach(self) -> Chain:
        """The same distribution, through whose parameters, the networks' among them, no gradient passes."""
        steps = [step.detach() for step in self._steps]
        return Chain(self._first.detach(), steps, self._sizes, upward=self._upward)

    @property
    @override
    def extent(self) -> tuple[Tensor, Tensor]:
        """The first layer's own box; of each other layer what is 9 standard deviations around its means, given the box before.

        The means are looked at in 1024 points, spread evenly over that box: many where it has one dimension or two.
        """
        boxes = [self._first.extent]
        for step in self._steps:
            boxes.append(_box_around(step, *boxes[-1]))
        centres, scales = zip(*boxes, strict=True)
        return self._joined(centres), self._joined(scales)

    @override
    @torch.no_grad()
    def _moments(self) -> tuple[Tensor, Tensor]:
        """The first layer's own; those of each other layer by 256 draws of what is before it, the same for all rows.

        E[z] = E[m] and Var[z] = E[v] + Var[m], where m and v are mean and variance given what is before: the mean is off by
        about a 16th of m's standard deviation.
        """
        means, variances = [self._first.mean], [self._first.variance]
        sums = [torch.zeros(())] * len(self._steps)
        for layers in self._given_fixed_draws():
            parts = [torch.stack([given.mean, given.mean.square(), given.variance]).sum(dim=1) for given in layers]
            sums = [total.to(part) + part for total, part in zip(sums, parts, strict=True)]
        for mean, square, variance in (total / MOMENT_DRAWS for total in sums):
            means.append(mean)
            variances.append(variance + (square - mean.square()).clamp_min(0))
        return self._joined(means), self._joined(variances)

    def _given_fixed_draws(self) -> Iterator[list[DiagonalNormal]]:
        """What the following layers are given some draws of those before: 256 in all, of the same noise for all rows."""
        for part in range(MOMENT_DRAWS // MOMENTS_AT_ONCE):
            random, layers = generator(0, "moments", part), list[DiagonalNormal]()
            z = self._draws_of_first(random, part)
            for step in self._steps:
                layers.append(step(z))
                z = layers[-1].transform(_shared_noise(random, layers[-1].mean))
            yield layers

    def _draws_of_first(self, random: torch.Generator, part: int) -> Tensor:
        first = self._first
        if isinstance(first, NormalMixture):  # which cannot transform noise, but has no rows either
            return first.sample((MOMENTS_AT_ONCE,), generator(0, "moments of mixture", part, device=first.means.device))
        return first.transform(_shared_noise(random, first.mean.expand(MOMENTS_AT_ONCE, *first.mean.shape)))

    def _in_order(self, layers: Sequence[Tensor]) -> Sequence[Tensor]:
        """Layers taken from the order in which they lie in z to that in which they are drawn, or back."""
        return layers if self._upward else layers[::-1]

    def _joined(self, layers: Sequence[Tensor]) -> Tensor:
        """Layers, in the order in which they are drawn, as one z."""
        return torch.cat(tuple(self._in_order(layers)), dim=-1)


def _shared_noise(random: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal noise for draws like (draws, ..., K), the same for all that is between."""
    noise = torch.randn(len(like), like.shape[-1], generator=random, dtype=torch.float64)
    return noise.to(like).reshape(len(like), *[1] * (like.ndim - 2), -1)


def _box_around(step: Conditional, centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and scale of the box of a layer, given those (..., K) of the layer before it."""
    unit = SobolEngine(centre.shape[-1]).draw(BOX_POINTS, dtype=torch.float64).to(centre)
    given = step(centre + scale * REACH * (2 * unit - 1).reshape(BOX_POINTS, *[1] * (centre.ndim - 1), -1))
    low, high = (given.mean - REACH * given.stddev).amin(dim=0), (given.mean + REACH * given.stddev).amax(dim=0)
    return (low + high) / 2, (high - low) / (2 * REACH)
