"""Two and more layers of latents z_1, ..., z_L, z_1 next to the data, of which the generative network gets z_1 alone.

The prior is p(z_L) prod_l p(z_l|z_{l+1}), with normal conditionals by networks. The posterior goes up, q(z_1|y) prod_l
q(z_{l+1}|z_l), or down like the prior: each is one class, with the attributes of those in `vae.model.posteriors`, and one
entry in `vae.options.registry.HIERARCHIES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae.distributions.chains import Chain, Conditional
from vae.distributions.vectors import DiagonalNormal
from vae.model.networks import Feedforward, between
from vae.model.posteriors import DiagonalGaussian
from vae.options.architecture import Architecture
from vae.options.registry import Between


class Link(nn.Module):
    """One layer's latents (..., K) -> the normal distribution of another's.

    Standard deviations are log(1 + e^s), which has no kink as `as_stddev` has: what sums a density over a grid needs that.
    """

    def __init__(self, architecture: Architecture, before: int, after: int) -> None:
        super().__init__()
        self.network = Feedforward(architecture, before, 2 * after)

    def forward(self, z: Tensor) -> DiagonalNormal:
        """The distribution of the other layer, given ``z``."""
        mean, s = self.network(z).chunk(2, dim=-1)
        return DiagonalNormal(mean, softplus(s))


class Descent(nn.ModuleList):
    """The conditionals p(z_l|z_{l+1}), from the top on.

    Args:
        sizes: K_1, ..., K_L.
        options: `Between`, the layers between z_l and z_{l+1}, for each l. Going down they are gone through backwards.
    """

    def __init__(self, sizes: Sequence[int], **options: Any) -> None:
        chosen = Between(**options)
        networks = [Architecture(widths, chosen.activation) for widths in chosen.hidden]
        down = zip(networks[::-1], sizes[:0:-1], sizes[-2::-1], strict=True)
        super().__init__(Link(replace(network, hidden=network.hidden[::-1]), *pair) for network, *pair in down)
        self.sizes, self.between = tuple(sizes), networks

    @property
    def widest(self) -> int:
        """The most numbers that a layer of a network has between two layers of latents."""
        return max(2 * sum(self.sizes), *(network.widest(None) for network in self.between))


class TopDown(nn.Module):
    """p(z_L) prod_l p(z_l|z_{l+1}).

    Args:
        top: The prior of z_L, any but the VampPrior.
        descent: The conditionals.
    """

    normal = False

    def __init__(self, top: Any, descent: Descent) -> None:
        super().__init__()
        self.top, self.descent = top, descent
        self.smooth, self.widest = top.smooth, max(descent.widest, top.widest)

    def forward(self) -> Chain:
        """p(z), with event shape (K_1 + ... + K_L,)."""
        return Chain(self.top(), [Conditional(link) for link in self.descent], self.descent.sizes, upward=False)


class BottomUp(nn.Module):
    """q(z_1|y) prod_l q(z_{l+1}|z_l): each layer is inferred from a draw of the one below (Burda et al. 2016, section 2).

    From (..., 2 * K_1) -> event shape (K_1 + ... + K_L,).

    Args:
        descent: Of the prior, which this posterior has no use for but its layers.
        options: Those of `descent`, whose networks are the pattern of this one's.
    """

    normal, factorizes = False, False

    def __init__(self, descent: Descent, **options: Any) -> None:
        super().__init__()
        self.sizes, self.widest = descent.sizes, descent.widest
        self.head = DiagonalGaussian(self.sizes[0])
        self.features = self.head.features
        up = zip(descent.between, self.sizes, self.sizes[1:], strict=False)
        self.ascent = nn.ModuleList(Link(*sizes) for sizes in up)

    def forward(self, f: Tensor) -> Chain:
        """q(z|y) from the network output ``f``."""
        return Chain(self.head(f), [Conditional(link) for link in self.ascent], self.sizes, upward=True)


class Ladder(nn.Module):
    """q(z_L|y) prod_l q(z_l|z_{l+1}, y), q(z_l|z_{l+1}, y) proportional to p(z_l|z_{l+1}) N(z_l; mean_l(y), stddev_l(y)^2).

    Sonderby et al. 2016, "Ladder variational autoencoders", section 2: what y says of each layer is found upwards without
    drawing, and then multiplied by what the prior, whose networks are shared, says of it given the layer above.

    From (..., 2 * K_1 + H) -> event shape (K_1 + ... + K_L,): what y says of z_1, and what goes up, the H numbers that the
    first hidden layer on the way to z_2 gets, or, if there is none, as many as are said of z_2.

    Args:
        descent: Of the prior.
        options: Those of `descent`, whose networks are the pattern of this one's.
    """

    normal, factorizes = False, False

    def __init__(self, descent: Descent, **options: Any) -> None:
        super().__init__()
        self._descent = (descent,)  # in a tuple, as its weights are the prior's already
        self.sizes, self.widest = descent.sizes, descent.widest
        self.heads = [DiagonalGaussian(size) for size in self.sizes]
        passed = [(*network.hidden, 2 * size)[0] for network, size in zip(descent.between, self.sizes[1:], strict=True)]
        outputs = [head.features + up for head, up in zip(self.heads, (*passed, 0), strict=True)]
        self.features = outputs[0]
        up = zip(descent.between, passed, outputs[1:], strict=True)
        self.ascent = nn.ModuleList(_rise(network, *sizes) for network, *sizes in up)

    def forward(self, f: Tensor) -> Chain:
        """q(z|y) from the network output ``f``."""
        told, up = [], f  # by y of each layer, from z_1 on
        for head, network in zip(self.heads, (nn.Identity(), *self.ascent), strict=True):
            own, up = torch.tensor_split(network(up), [head.features], dim=-1)
            told.append(head(own))
        *evidence, top = told
        pairs = zip(self._descent[0], reversed(evidence), strict=True)
        return Chain(top, [Conditional(*pair) for pair in pairs], self.sizes, upward=False)


def _rise(architecture: Architecture, inputs: int, outputs: int) -> nn.Module:
    """The network from what its first hidden layer gets to its outputs."""
    following = Feedforward(replace(architecture, hidden=architecture.hidden[1:]), inputs, outputs)
    return nn.Sequential(*between(architecture, inputs), following) if architecture.hidden else following
