"""What training minimises: each objective is one class, and one entry in `vae.registry.OBJECTIVES`."""

from vae.model.terms import KL, Terms
from vae.objectives.elbo import ELBO, BetaELBO, FreeBits, StickingTheLanding
from vae.objectives.importance_weighted import IWAE, PIWAE, DReG
from vae.objectives.objective import DONE, Objective, Values

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
