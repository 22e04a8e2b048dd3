"""Variational autoencoders whose held-out likelihoods can be trusted.

Symbols, as in the lecture and in every module here: ``y`` data of shape (N, D), ``z`` latent of size K, ``w`` generative
weights, ``v`` inference weights, ``S`` Monte Carlo samples, ``N`` examples. All densities are normalised and in nats.

>>> import torch
>>> from vae import VAE
>>> y = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
>>> vae = VAE({"hidden": [16]}, {"hidden": [16]}, data_dim=5, latent_dim=2, likelihood="gaussian_per_dimension")
>>> vae = vae.fit(y, S=1, max_epochs=3, accelerator="cpu", progress=False)
>>> vae.log_likelihood(y, S=100).shape
torch.Size([200])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.model.networks import Feedforward
    from vae.objectives import ELBO
    from vae.options.architecture import Architecture
    from vae.training.vae import VAE

__all__ = ["ELBO", "VAE", "Architecture", "Feedforward"]

_HOMES = {
    "VAE": "vae.training.vae",
    "Architecture": "vae.options.architecture",
    "Feedforward": "vae.model.networks",
    "ELBO": "vae.objectives",
}


def __getattr__(name: str) -> Any:
    """Import torch and Lightning only when something that needs them is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vae' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
