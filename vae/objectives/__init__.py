"""What training minimises: each objective is one class, and one entry in `vae.registry.OBJECTIVES`."""

from vae.objectives.base import DONE, KL, Objective, Terms, Values
from vae.objectives.elbo import ELBO, BetaELBO, FreeBits, StickingTheLanding
from vae.objectives.importance import IWAE, PIWAE, DReG

__all__ = [
    "DONE",
    "ELBO",
    "IWAE",
    "KL",
    "PIWAE",
    "BetaELBO",
    "DReG",
    "FreeBits",
    "Objective",
    "StickingTheLanding",
    "Terms",
    "Values",
]
