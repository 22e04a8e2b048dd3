"""The evidence lower bound, and what is made of it to train better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from typing_extensions import override

from vae.errors import OptionError
from vae.model.terms import Terms, mean
from vae.objectives.objective import DONE, Objective, Values
from vae.settings import BoundOptions, FreeNats, WeightedBound

if TYPE_CHECKING:
    from vae.model.latent_model import LatentModel


class ELBO(BoundOptions, Objective):
    """The negative evidence lower bound.

    Args:
        samples: Monte Carlo samples S per example.
        kl: ``"monte_carlo"`` for the lecture's three sampled terms, ``"closed_form"`` for the exact KL to the prior.
    """

    @override
    def check(self, vae: LatentModel) -> None:
        """Refuse the closed form of a KL between other than normal distributions."""
        if self.kl == "closed_form" and not vae.has_closed_form_kl:
            raise OptionError(f"kl 'closed_form' is not known for {_pair(vae)}: set kl to 'monte_carlo'")

    @override
    def values(self, terms: Terms, epoch: float = DONE) -> Values:
        reconstruction, kl = terms.log_likelihood, getattr(terms, self.kl)
        return Values(self._loss(terms, epoch), reconstruction, kl)

    def _loss(self, terms: Terms, epoch: float) -> Tensor:
        return getattr(terms, self.kl) - terms.log_likelihood


class BetaELBO(WeightedBound, ELBO):
    """beta-VAE: KL * beta - reconstruction (Higgins et al. 2017), with beta rising from 0 if there is a schedule.

    beta > 1 gives latents closer to the prior and worse reconstructions; only beta = 1 is a bound of log p(y).

    Args:
        samples: Monte Carlo samples S per example.
        kl: As in `ELBO`.
        beta: Weight of the KL, once it has risen.
        schedule: ``"constant"``; ``"linear"``, rising for ``epochs`` epochs (Bowman et al. 2016); or ``"cyclic"``, in every
            ``epochs`` epochs rising for the first half and staying for the second (Fu et al. 2019).
        epochs: How many the schedule takes.
    """

    def weight(self, epoch: float) -> float:
        """The weight beta after so many epochs, of which the current one may be a fraction."""
        if self.schedule == "constant" or epoch == DONE:
            return self.beta
        if self.schedule == "linear":
            return self.beta * min(1.0, epoch / self.epochs)
        return self.beta * min(1.0, 2 * (epoch % self.epochs) / self.epochs)

    @override
    def _loss(self, terms: Terms, epoch: float) -> Tensor:
        return self.weight(epoch) * getattr(terms, self.kl) - terms.log_likelihood


class FreeBits(FreeNats, ELBO):
    """The KL of each group of latent dimensions counts from ``nats`` on (Kingma et al. 2016, "IAF", eq. 15).

    The loss is sum_g max(nats, mean_n KL_g(y_n)) - reconstruction, with the mean over the batch, or a process's share of it.
    Below ``nats`` a group is free, so that training does not begin by switching latents off.

    Args:
        samples: Monte Carlo samples S per example.
        kl: As in `ELBO`.
        nats: That each group has for free.
        group: Latent dimensions in a group, neighbours; the last group may be smaller.
    """

    @override
    def check(self, vae: LatentModel) -> None:
        """Refuse models whose KL is no sum over latent dimensions, as they are not independent under both q and the prior."""
        if not (vae.inference.posterior.factorizes and vae.prior.normal):
            raise OptionError(
                f"free bits are of single latent dimensions, whose KL is not defined with {_pair(vae)}: set posterior to "
                "'diagonal_gaussian', prior to 'standard_normal' and hierarchy to null, or take another objective such as "
                "'beta_elbo'"
            )
        super().check(vae)

    @override
    def _loss(self, terms: Terms, epoch: float) -> Tensor:
        groups = terms.kl_columns(self.kl).mean(dim=0).split(self.group)
        return sum(part.sum().clamp(min=self.nats) for part in groups) - terms.log_likelihood


class StickingTheLanding(Objective):
    """The negative ELBO, its gradient without the score of q (Roeder, Wu and Duvenaud 2017).

    E_q[grad_v log q_v(z|y)] = 0, so leaving it out changes no expectation, and the nearer q is to the posterior, the less
    variance is left of the inference network's gradient: none where they are equal. The KL is that of the same draws. Right
    for the ELBO only: an importance-weighted bound would be biased, and has `DReG`.

    Args:
        samples: Monte Carlo samples S per example.
    """

    @override
    def values(self, terms: Terms, epoch: float = DONE) -> Values:
        reconstruction, kl = terms.log_likelihood, terms.monte_carlo
        log_posterior = mean(terms.q.detach().log_prob(terms.z))
        return Values(log_posterior - terms.log_prior - reconstruction, reconstruction, kl)


def _pair(vae: LatentModel) -> str:
    if vae.card.hierarchy is not None:
        return f"the layers of hierarchy {vae.card.hierarchy['name']!r}"
    return f"posterior {vae.card.posterior['name']!r} and prior {vae.card.prior['name']!r}"
