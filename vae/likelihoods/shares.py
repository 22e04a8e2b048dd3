"""Probabilities of counts given their total: of how a total is shared out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import pad
from typing_extensions import override

from vae.distributions.draws import gamma, rounded, uniform
from vae.distributions.supports import COUNT
from vae.distributions.vectors import Shape, wide
from vae.errors import OptionError
from vae.likelihoods import starts
from vae.likelihoods.counts import log_factorial
from vae.likelihoods.likelihood import LARGEST_LOG, Likelihood
from vae.options.registry import TypicalTotal

LARGEST_LOG_TOTAL = math.log(1e8)  # of all concentrations: beyond, the counts are multinomial but for 1e-8 of their variance


class DirichletMultinomial(Likelihood):
    """Counts given their total, the sum of a row's counts: shares are Dirichlet with concentrations exp(f_w(z)).

    Of negative binomial counts with concentrations r_d and one success probability for all of a row it is the distribution
    given their sum, with r_d for concentrations; the mean of a column is its share of the total. It has more variance than a
    multinomial, and as many zeros as small concentrations give it; counts of molecules need no others (Townes et al. 2019,
    "Feature selection and dimension reduction for single-cell RNA-Seq based on a multinomial model").

    The total of a row with missing values is that of its observed ones, whose concentrations are the same.

    Args:
        data_dim: Number of columns D.
        options: `TypicalTotal`.

    Raises:
        OptionError: If there is but one column.
    """

    support = COUNT
    measure = "probability"
    given_total = True
    library: Tensor

    def __init__(self, data_dim: int, **options: Any) -> None:
        super().__init__(data_dim)
        if data_dim < 2:
            raise OptionError(
                "library makes p(y|z) that of counts given their total, which says all of a single column: give two or more "
                f"columns the same library, or leave it out; got {data_dim}"
            )
        self.register_buffer("library", torch.tensor(TypicalTotal(**options).library))

    @override
    def forward(self, f: Tensor) -> GivenTotal:
        logs = wide(f)
        total = logs.logsumexp(dim=-1, keepdim=True)
        concentrations = wide(logs - total + wide(total, LARGEST_LOG_TOTAL), LARGEST_LOG).exp()
        return GivenTotal(concentrations, self.library.double().round().clamp_min(1), f.dtype)

    @override
    def _by_moments(self, y: Tensor) -> Tensor:
        shares, total = starts.shares(y)
        return (shares * total).log()


class GivenTotal(Distribution):
    """The Dirichlet-multinomial distribution of counts y given their sum n, with concentrations a whose sum is A.

    p(y|n) = n! Gamma(A) / Gamma(n + A) prod_d Gamma(y_d + a_d) / (y_d! Gamma(a_d)). A missing count (NaN) is left out, and so
    is its concentration: n is the sum of the others.

    Args:
        concentrations: a, shape (..., D), `wide`.
        total: n of draws, means and variances.
        dtype: Of these.
    """

    arg_constraints = {}  # noqa: RUF012  # as torch declares it

    def __init__(self, concentrations: Tensor, total: Tensor, dtype: torch.dtype) -> None:
        self.concentrations, self.total, self._dtype = concentrations, total.to(concentrations.dtype), dtype
        super().__init__(concentrations.shape[:-1], concentrations.shape[-1:], validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the counts given their total, in nats, shape (...)."""
        counts, concentrations, of_columns = self._parts(value)
        return _of_total(counts.sum(dim=-1), concentrations.sum(dim=-1)) + of_columns.sum(dim=-1)

    def log_prob_columns(self, value: Tensor) -> Tensor:
        """Log p of each column given those before it and the total, (..., D), whose sum is `log_prob`; the last one's is 0.

        Each is beta-binomial: what is left of the total is shared between the column and those after it.
        """
        counts, concentrations, of_columns = self._parts(value)
        left = _of_total(_tails(counts), _tails(concentrations))
        return of_columns + left - pad(left[..., 1:], (0, 1))

    def _parts(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts and concentrations, 0 where a count is missing, and what each column has in log p by itself."""
        missing = value.isnan()
        y, a = wide(value).masked_fill(missing, 0), self.concentrations
        own = (y + a).lgamma() - a.lgamma() - log_factorial(y)
        return y, a.masked_fill(missing, 0), own.masked_fill(missing, 0)

    @property
    @override
    def mean(self) -> Tensor:
        """The mean counts n a / A, shape (..., D)."""
        return (self.total * self._shares).to(self._dtype)

    @property
    @override
    def variance(self) -> Tensor:
        """The variances n p (1 - p) (n + A) / (1 + A) with p = a / A, shape (..., D)."""
        n, p, A = self.total, self._shares, self.concentrations.sum(dim=-1, keepdim=True)
        return (n * p * (1 - p) * (n + A) / (1 + A)).to(self._dtype)

    @property
    def _shares(self) -> Tensor:
        return self.concentrations / self.concentrations.sum(dim=-1, keepdim=True)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws without gradient, shape ``sample_shape + (..., D)``: column by column of what is left of the total."""
        a = self.concentrations.expand(self._extended_shape(torch.Size(sample_shape)))
        powers = uniform(a, a.shape, generator).clamp_min(torch.finfo(a.dtype).tiny).log() / a
        shares = (gamma(a + 1, generator).log() + powers).softmax(dim=-1)  # gammas of a, of which small ones would be 0
        chances = (shares / _tails(shares)).nan_to_num(0.0).clamp(0, 1)
        left, drawn = self.total.expand(a.shape[:-1]).contiguous(), []
        for chance in chances[..., :-1].unbind(dim=-1):
            drawn.append(torch.binomial(left, chance.contiguous(), generator=generator))
            left = left - drawn[-1]
        return rounded(torch.stack([*drawn, left], dim=-1), self._dtype)


def _of_total(n: Tensor, A: Tensor) -> Tensor:
    """log n! + log Gamma(A) - log Gamma(n + A); 0 where nothing is shared out between no columns."""
    A = A.masked_fill(A == 0, 1)
    return (n + 1).lgamma() + A.lgamma() - (n + A).lgamma()


def _tails(x: Tensor) -> Tensor:
    """The sums over each column and those after it."""
    return x.flip(-1).cumsum(dim=-1).flip(-1)
