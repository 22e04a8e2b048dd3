"""Estimators of log p(y) on held-out data, with errors, bounds and diagnostics.

Each takes a `VAE` and rows y of shape (N, D) and returns a value per row with its diagnostics, in memory that grows neither
with N nor with the number of samples S:

>>> import torch
>>> from vae import VAE
>>> from vae.evidence import importance_sampling
>>> vae = VAE({"hidden": [8]}, {"hidden": [8]}, data_dim=3, latent_dim=2)
>>> estimate = importance_sampling(vae, torch.zeros(5, 3), S=1000)
>>> estimate.log_likelihood.shape, estimate.monte_carlo_error < 0.1
(torch.Size([5]), True)

| function | log p(y) is | cost in runs of the generative network | for |
|---|---|---|---|
| `evidence_lower_bound` | above | N S | a first look; what training maximises |
| `importance_sampling` | above, in expectation | N S | every row |
| `prior_sampling` | above, in expectation, often by far | S | one or two latent dimensions; the lecture's number |
| `annealed_importance_sampling` | just above, in expectation | N S temperatures leapfrogs, with gradients | the report |
| `bidirectional_bounds` | between two values, in expectation | twice that | checking annealing on simulated rows |
| `assess` | that of annealing, with every row checked | seven times annealing at the most | a figure with its verdict |
| `exact` | the value | - | linear-Gaussian models, one or two latent dimensions |

`docs/likelihood.md` explains them.
"""

from vae.evidence.aggregate import Latents, latent_usage
from vae.evidence.annealing.annealed import annealed_importance_sampling, reverse_annealing
from vae.evidence.annealing.temperatures import Annealing
from vae.evidence.annealing.tuning import tune_step_sizes
from vae.evidence.estimate import Estimate, MeanWithError
from vae.evidence.from_posterior import importance_sampling
from vae.evidence.from_prior import prior_sampling
from vae.evidence.gap import Gap, inference_gap
from vae.evidence.imputation import Imputation, impute, log_likelihood_given_rest
from vae.evidence.integration.exact import Exact, exact, exact_applies
from vae.evidence.lower_bound import LowerBound, evidence_lower_bound, reconstruction_by_column
from vae.evidence.verdict.assess import Assessment, assess
from vae.evidence.verdict.bidirectional import Bounds, bidirectional_bounds, settled_bounds, simulated_rows
from vae.evidence.verdict.checked import Chains, Checked, checked_annealing, one_by_one, settle
from vae.evidence.verdict.others import excess, surpluses
from vae.evidence.verdict.reported import PREFERENCE, reported_estimator, two_stage
from vae.evidence.verdict.rules import TOLERANCE, Grounds, Verdict, most_unseen, verdict

ESTIMATORS = {"prior": prior_sampling, "importance": importance_sampling, "annealed": annealed_importance_sampling}

__all__ = [
    "ESTIMATORS",
    "PREFERENCE",
    "TOLERANCE",
    "Annealing",
    "Assessment",
    "Bounds",
    "Chains",
    "Checked",
    "Estimate",
    "Exact",
    "Gap",
    "Grounds",
    "Imputation",
    "Latents",
    "LowerBound",
    "MeanWithError",
    "Verdict",
    "annealed_importance_sampling",
    "assess",
    "bidirectional_bounds",
    "checked_annealing",
    "evidence_lower_bound",
    "exact",
    "exact_applies",
    "excess",
    "importance_sampling",
    "impute",
    "inference_gap",
    "latent_usage",
    "log_likelihood_given_rest",
    "most_unseen",
    "one_by_one",
    "prior_sampling",
    "reconstruction_by_column",
    "reported_estimator",
    "reverse_annealing",
    "settle",
    "settled_bounds",
    "simulated_rows",
    "surpluses",
    "tune_step_sizes",
    "two_stage",
    "verdict",
]
