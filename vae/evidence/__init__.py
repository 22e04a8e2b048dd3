"""Estimators of log p(y) on held-out data.

Each takes a `VAE`, rows y of shape (N, D) and a number of samples S, and returns an `Estimate` per row, in bounded memory for
any N and S.
"""

from vae.evidence.estimate import Estimate
from vae.evidence.importance import importance_sampling
from vae.evidence.prior import prior_sampling

ESTIMATORS = {"prior": prior_sampling, "importance": importance_sampling}

__all__ = ["ESTIMATORS", "Estimate", "importance_sampling", "prior_sampling"]
