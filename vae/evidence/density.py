"""log p(y|z) for many latents, without what the generic form would compute in vain.

`paired` gives each example its own latents; `all_pairs` gives all examples the same ones. A likelihood that has no
entry in the tables at the end takes the generic form.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae.likelihoods import Bernoulli, Gaussian, LearnedGaussian, Likelihood, PerDimensionGaussian
from vae.model.conditionals import Generative
from vae.model.layers import tanh_

CANCELLATION = 1e-3  # nats that the product form may differ from the direct form
PROBE = 64
FACTORS = 16  # a power of two
SLICE = 2**18  # numbers in an array: larger ones are given back to the system, and cost page faults each time

Rows = slice | Tensor


def paired(generative: Generative, y: Tensor) -> Paired:
    """z (S, N, K) -> log p(y_n|z_sn), (S, N), for rows y (N, D)."""
    form = PAIRED.get(type(generative.likelihood), Paired) if isinstance(generative.network, nn.Sequential) else Paired
    return form(generative, y)


def all_pairs(generative: Generative, y: Tensor, probe: Tensor) -> AllPairs:
    """log p(y_n|z_s) of all rows y (N, D) under shared latents; ``probe`` (S, K) are latents to check the product form on."""
    form = PRODUCTS.get(type(generative.likelihood))
    if form is None:
        return AllPairs(generative, y)
    product, z = form(generative, y, probe), probe[:PROBE]
    rows = product.y.square().sum(dim=-1).topk(min(PROBE, len(y))).indices  # most can cancel farthest from the centre
    values = product.at(z)(rows).double() + product.offset[rows]
    direct = generative.likelihood(generative.features(z)[:, None].double()).log_prob(y[rows].double())
    return product if (values - direct).abs().max() <= CANCELLATION else form(generative, y, probe, torch.float64)


class Paired:
    """The generic form, by the distribution that the generative network returns."""

    def __init__(self, generative: Generative, y: Tensor) -> None:
        self.generative, self.y = generative, y
        self.draws = max(1, SLICE // (len(y) * generative.widest))

    def __call__(self, z: Tensor) -> Tensor:
        """log p(y_n|z_sn); without a gradient, some draws at a time."""
        return self.at_once(z) if z.requires_grad else torch.cat([self.at_once(part) for part in z.split(self.draws)])

    def at_once(self, z: Tensor) -> Tensor:
        """log p(y_n|z_sn)."""
        return self.generative(z).log_prob(self.y)


class PairedBernoulli(Paired):
    """Sum_d y_d f_d - softplus(f_d) with f = W h + b: the first part is h . (W'y) + b . y, without a column per pixel."""

    def __init__(self, generative: Generative, y: Tensor) -> None:
        super().__init__(generative, y)
        *self.hidden, last = generative.network
        assert isinstance(last, nn.Linear)
        self.last, self.projected, self.offset = last, y @ last.weight, y @ last.bias

    def at_once(self, z: Tensor) -> Tensor:
        """log p(y_n|z_sn)."""
        h = self.generative.reads(z)
        for layer in self.hidden:
            h = tanh_(h) if isinstance(layer, nn.Tanh) and not h.requires_grad else layer(h)
        return torch.linalg.vecdot(h, self.projected) + self.offset - sum_softplus_(self.last(h))


class AllPairs:
    """The generic form: a density for each pair.

    Attributes:
        offset: To be added to what `at` gives, (N,): what does not depend on z.
    """

    def __init__(self, generative: Generative, y: Tensor) -> None:
        self.generative, self.y = generative, y
        self.offset = torch.zeros(len(y), dtype=torch.float64, device=y.device)

    def at(self, z: Tensor) -> Callable[[Rows], Tensor]:
        """The function from rows to log p(y_n|z_s) - offset_n, (S, rows), for latents z (S, K)."""
        f = self.generative.features(z)
        return lambda rows: self.generative.likelihood(f[:, None]).log_prob(self.y[rows])


class Product(AllPairs):
    """log p(y_n|z_s) = A(z_s) . B(y_n) + a(z_s) + b(y_n): one matrix product for all pairs."""

    def __init__(self, generative: Generative, y: Tensor, probe: Tensor, dtype: torch.dtype | None = None) -> None:
        super().__init__(generative, y)
        self.dtype = dtype or y.dtype
        self.y = y.to(self.dtype)

    def factors(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """A (S, D) and a (S,) from network outputs."""
        return f, -softplus(f).sum(dim=-1)

    def at(self, z: Tensor) -> Callable[[Rows], Tensor]:
        """The function from rows to log p(y_n|z_s) - offset_n, (S, rows), for latents z (S, K)."""
        A, a = self.factors(self.generative.features(z).to(self.dtype))
        return lambda rows: torch.addmm(a[:, None], A, self.y[rows].T)


class GaussianProduct(Product):
    """A and B are f and y, centred at f(0), in standard deviations: -|A - B|^2 / 2 = A.B - |A|^2 / 2 - |B|^2 / 2.

    Without the centring, and even with it for small standard deviations, the squares cancel: `all_pairs` looks. The mean of y
    would do as well, but then a row's value would depend on the others.
    """

    def __init__(self, generative: Generative, y: Tensor, probe: Tensor, dtype: torch.dtype | None = None) -> None:
        super().__init__(generative, y, probe, dtype)
        likelihood = generative.likelihood
        assert isinstance(likelihood, Gaussian | LearnedGaussian)
        self.stddev = likelihood.variance.sqrt().to(self.dtype)
        self.centre = generative.features(torch.zeros_like(probe[:1]))[0].to(self.dtype)
        self.y = (self.y - self.centre) / self.stddev
        constant = self.stddev.double().log().expand(y.shape[1]).sum() + y.shape[1] / 2 * math.log(2 * math.pi)
        self.offset = -self.y.double().square().sum(dim=-1) / 2 - constant

    def factors(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """A (S, D) and a (S,) from network outputs."""
        A = (f - self.centre) / self.stddev
        return A, -A.square().sum(dim=-1) / 2


def sum_softplus_(f: Tensor) -> Tensor:
    """Sum over the last dimension of log(1 + e^f); without a gradient, ``f`` is overwritten.

    softplus(f) = max(f, 0) - log sigmoid(|f|), and the logarithm of a product of sixteen sigmoids, each at least 1/2, is one
    logarithm in place of sixteen.
    """
    if f.requires_grad or f.shape[-1] % FACTORS:
        return softplus(f, threshold=40).sum(dim=-1)  # beyond, e^-40 is lost in float64 too
    positive = f.clamp_min(0).sum(dim=-1)
    factors = f.abs_().sigmoid_()
    while factors.shape[-1] > f.shape[-1] // FACTORS:
        first, second = factors.chunk(2, dim=-1)
        factors = first * second
    return positive - factors.log_().sum(dim=-1)


PAIRED: dict[type[Likelihood], type[Paired]] = {Bernoulli: PairedBernoulli}
PRODUCTS: dict[type[Likelihood], type[Product]] = {
    Bernoulli: Product,
    Gaussian: GaussianProduct,
    LearnedGaussian: GaussianProduct,
    PerDimensionGaussian: GaussianProduct,
}
