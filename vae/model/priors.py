"""p(z): modules that return the prior distribution. Each is one class, and one entry in `vae.options.registry.PRIORS`.

``normal`` says whether p(z) is a normal distribution with diagonal covariance, ``smooth`` whether its density has no kinks,
and ``widest`` how many numbers that needs for each latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vae.distributions.flows import Flow, Transported
from vae.distributions.latent import NormalMixture
from vae.distributions.noise import generator
from vae.distributions.vectors import DiagonalNormal, UnitNormal
from vae.errors import OptionError
from vae.model.layers import active_layers, during
from vae.model.posteriors import DiagonalGaussian, as_stddev
from vae.options.registry import Components, Couplings, PseudoInputs

if TYPE_CHECKING:
    from vae.model.conditionals import Inference


JITTER = 0.01  # of the pseudo-inputs that training begins with


class StandardNormal(nn.Module):
    """N(0, I) over K latent dimensions."""

    mean: Tensor
    stddev: Tensor
    normal, smooth = True, True

    def __init__(self, inference: Inference, latent_dim: int) -> None:
        super().__init__()
        self.widest = latent_dim
        self.register_buffer("mean", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("stddev", torch.ones(latent_dim), persistent=False)

    def forward(self) -> UnitNormal:
        """p(z), with event shape (K,)."""
        return UnitNormal(self.mean, self.stddev)


class GaussianMixture(nn.Module):
    """A mixture of M normal distributions, whose weights, means and standard deviations are learned.

    Args:
        inference: The inference network, which this prior has no use for.
        latent_dim: K.
        options: `Components`.
    """

    normal, smooth = False, True

    def __init__(self, inference: Inference, latent_dim: int, **options: Any) -> None:
        super().__init__()
        components = Components(**options).components
        self.widest = 2 * components
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latent_dim))
        self.raw_stddev = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self) -> NormalMixture:
        """p(z), with event shape (K,)."""
        return NormalMixture(self.logits.log_softmax(dim=0), self.mean, as_stddev(self.raw_stddev))


class VampPrior(nn.Module):
    """The mixture (1 / M) sum_m q(z|u_m) of M learned pseudo-inputs u_m (Tomczak and Welling 2018, eq. 9).

    The pseudo-inputs are what the inference network gets of a row: numbers on a common scale. Training begins with those of
    randomly chosen training rows.

    Args:
        inference: The inference network, with a diagonal posterior.
        latent_dim: K.
        options: `PseudoInputs`.

    Raises:
        OptionError: If q is no diagonal normal distribution.
    """

    normal, smooth = False, True

    def __init__(self, inference: Inference, latent_dim: int, **options: Any) -> None:
        super().__init__()
        components = PseudoInputs(**options).components
        if not isinstance(inference.posterior, DiagonalGaussian):
            raise OptionError(
                "prior 'vamp' is a mixture of the posteriors of its pseudo-inputs, which needs posterior 'diagonal_gaussian': "
                f"with {type(inference.posterior).__name__} each latent would be scored under all of them at too great a cost"
            )
        self.widest = 2 * components
        self._inference = (inference,)  # in a tuple, as its weights are the model's already
        self._active = active_layers(inference)
        self.pseudo_inputs = nn.Parameter(torch.randn(components, inference.width))

    def forward(self) -> NormalMixture:
        """p(z), with event shape (K,)."""
        inference, count = self._inference[0], len(self.pseudo_inputs)
        with during(None, self._active):  # p(z) is not random, nor pseudo-inputs a part of the batch
            q: DiagonalNormal = inference.posterior(inference.network(self.pseudo_inputs))
        uniform = torch.full((count,), 1 / count, dtype=q.mean.dtype, device=q.mean.device)
        return NormalMixture(uniform.log(), q.mean, q.stddev)

    @torch.no_grad()
    def initialize(self, y: Tensor) -> None:
        """Start from the first M of the rows y (N, D), repeated if fewer, with a little noise that tells equal ones apart."""
        encoded, count = self._inference[0].encode(y), len(self.pseudo_inputs)
        jitter = torch.randn(self.pseudo_inputs.shape, generator=generator(0, "pseudo-inputs"))
        self.pseudo_inputs.copy_(encoded[torch.arange(count) % len(encoded)] + JITTER * jitter.to(y))


class FlowPrior(nn.Module):
    """What a flow makes of standard normal noise (as in Chen et al. 2017, "Variational lossy autoencoder", by splines here).

    Args:
        inference: The inference network, which this prior has no use for.
        latent_dim: K.
        options: `Couplings`.
    """

    normal, smooth = False, False
    location: Tensor
    stretch: Tensor

    def __init__(self, inference: Inference, latent_dim: int, **options: Any) -> None:
        super().__init__()
        couplings = Couplings(**options)
        self.flow = Flow(latent_dim, couplings.transforms, couplings.hidden)
        self.widest = self.flow.widest
        self.register_buffer("location", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("stretch", torch.ones(latent_dim), persistent=False)

    def forward(self) -> Transported:
        """p(z), with event shape (K,)."""
        return Transported(self.flow, self.location, self.stretch)
