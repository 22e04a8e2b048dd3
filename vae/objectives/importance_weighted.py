"""Importance-weighted bounds: the logarithm of a mean of weights w_k = p(y|z_k) p(z_k) / q(z_k|y) is nearer to log p(y)."""

from __future__ import annotations

import math

from torch import Tensor
from typing_extensions import override

from vae.model.terms import Terms
from vae.objectives.objective import DONE, Objective, Values
from vae.settings import AveragedBounds, ImportanceDraws


class IWAE(ImportanceDraws, Objective):
    """The negative importance-weighted bound L_K = E[log (1/K) sum_k w_k], z_k ~ q(z|y) (Burda et al. 2016, eq. 8).

    ELBO = L_1 <= L_2 <= ... <= log p(y), with q used as a proposal rather than as the posterior: the ELBO, which is logged
    too, need not grow with it. The larger K is, the weaker is the signal in the gradient of the inference network (Rainforth
    et al. 2018, theorem 1); `DReG` and `PIWAE` are two ways out.

    Args:
        samples: Importance samples K per example.
    """

    @override
    def values(self, terms: Terms, epoch: float = DONE) -> Values:
        bound = self._bound(terms.log_likelihood_of_draws + terms.log_prior_of_draws - terms.log_posterior_of_draws)
        return Values(self._loss(terms, bound), terms.log_likelihood, terms.monte_carlo, bound)

    def _bound(self, log_weights: Tensor) -> Tensor:
        """The bound of each row, (N,), from log weights (S, N)."""
        return log_weights.logsumexp(dim=0) - math.log(self.samples)

    def _loss(self, terms: Terms, bound: Tensor) -> Tensor:
        return -bound


class PIWAE(AveragedBounds, IWAE):
    """Partially importance-weighted: M independent bounds L_K, averaged (Rainforth et al. 2018, section 4, "MIWAE").

    The signal in the inference network's gradient, relative to its noise, grows with M and shrinks with K. Called MIWAE there,
    which elsewhere is a method for missing data.

    Args:
        samples: Importance samples K of each bound.
        averages: Bounds M per example, from M * K draws.
    """

    @property
    @override
    def draws(self) -> int:
        return self.averages * self.samples

    @override
    def _bound(self, log_weights: Tensor) -> Tensor:
        groups = log_weights.unflatten(0, (self.averages, self.samples))
        return (groups.logsumexp(dim=1) - math.log(self.samples)).mean(dim=0)


class DReG(IWAE):
    """The importance-weighted bound with the doubly reparameterised gradient (Tucker et al. 2019, eq. 8).

    The value, and the gradient of the generative network and of the prior, are IWAE's. The inference network's is
    sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi), with v_k = w_k / sum_j w_j and the parameters of q held in log w_k: equal
    in expectation, with a signal that does not vanish as K grows. With K = 1 it is sticking the landing.

    Args:
        samples: Importance samples K per example.
    """

    @override
    def _loss(self, terms: Terms, bound: Tensor) -> Tensor:
        held = terms.q.detach().log_prob(terms.z)
        log_weights = terms.log_likelihood_of_draws + terms.log_prior_of_draws - held
        if terms.z.requires_grad:  # the gradient by z_k comes back as -v_k d log w_k / d z_k
            shares = log_weights.detach().softmax(dim=0)[..., None]
            terms.z.register_hook(lambda gradient: gradient * shares)
        return -self._bound(log_weights)
