"""What training minimises: each objective is one class, and one entry in `vae.settings.OBJECTIVES`."""

from vae.model.terms import Terms
from vae.objectives.elbo import ELBO, BetaELBO, FreeBits, StickingTheLanding
from vae.objectives.importance_weighted import IWAE, PIWAE, DReG
from vae.objectives.objective import DONE, Objective, Values
from vae.options.registry import KL

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
