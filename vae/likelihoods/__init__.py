"""p(y|z): modules that turn the generative network's output into a distribution over data.

A likelihood is constructed with the data dimension D and its own options, says how many numbers it needs per column
(`features`), over which values it is a density or a probability (`support`), and maps (..., features * D) to a distribution
over (..., D).
"""

from vae.likelihoods.base import Likelihood
from vae.likelihoods.continuous import Beta, LogNormal, StudentT, ZeroOneInflatedBeta
from vae.likelihoods.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    NegativeBinomial,
    Ordinal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from vae.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian, LearnedGaussian, PerDimensionGaussian
from vae.likelihoods.mixed import Mixed
from vae.likelihoods.pixels import ContinuousBernoulli, DiscretizedLogistic

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "HeteroscedasticGaussian",
    "LearnedGaussian",
    "Likelihood",
    "LogNormal",
    "Mixed",
    "NegativeBinomial",
    "Ordinal",
    "PerDimensionGaussian",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "ZeroOneInflatedBeta",
]
