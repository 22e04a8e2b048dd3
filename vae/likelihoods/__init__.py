"""p(y|z): modules that turn the generative network's output into a distribution over data.

A likelihood is constructed with the data dimension D and its own options, which `vae.options.registry` declares. It says
how many numbers it needs per column (`features`), over which values it is a density or a probability (`support`), and maps
(..., features * D) to a distribution over (..., D).

| name | of values | options |
|---|---|---|
| `gaussian` | real, one fixed variance | variance |
| `gaussian_learned`, `gaussian_per_dimension` | real, one learned variance, or one for each column | min_variance |
| `gaussian_heteroscedastic` | real, the variance from the network | min_variance |
| `student_t` | real, with outliers | min_scale, min_degrees |
| `log_normal`, `gamma` | positive | min_scale; min_shape |
| `beta`, `zero_one_inflated_beta` | shares without, with 0 and 1 | |
| `continuous_bernoulli` | grey values from 0 to 1, as a density | |
| `discretized_logistic` | whole numbers 0 to 255, such as pixels | levels, min_scale |
| `bernoulli`, `categorical`, `ordinal` | 0 or 1; classes; ordered levels | levels |
| `binomial` | whole numbers from 0 to trials | trials |
| `poisson`, `negative_binomial`, `zero_inflated_negative_binomial` | counts | |
| `dirichlet_multinomial` | counts, given their total in a row | library |
| `mixed` | columns of different kinds, with missing values | columns |
"""

from vae.likelihoods.classes import Bernoulli, Categorical, Ordinal
from vae.likelihoods.continuous import Beta, Gamma, LogNormal, StudentT, ZeroOneInflatedBeta
from vae.likelihoods.counts import Binomial, NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from vae.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian, LearnedGaussian, PerDimensionGaussian
from vae.likelihoods.likelihood import Likelihood
from vae.likelihoods.mixed import Mixed
from vae.likelihoods.pixels import ContinuousBernoulli, DiscretizedLogistic
from vae.likelihoods.shares import DirichletMultinomial

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DirichletMultinomial",
    "DiscretizedLogistic",
    "Gamma",
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
