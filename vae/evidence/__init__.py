"""Estimators of log p(y) on held-out data.

Each takes a `VAE`, rows y of shape (N, D) and a number of samples S, and returns an `Estimate` per row, in bounded memory for
any N and S. `evidence_lower_bound` gives the ELBO with its parts in the same way.
"""

from vae.evidence.bound import Bound, evidence_lower_bound
from vae.evidence.estimate import Estimate
from vae.evidence.importance import importance_sampling
from vae.evidence.prior import prior_sampling

ESTIMATORS = {"prior": prior_sampling, "importance": importance_sampling}

__all__ = ["ESTIMATORS", "Bound", "Estimate", "evidence_lower_bound", "importance_sampling", "prior_sampling"]
