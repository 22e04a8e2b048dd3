"""Every likelihood, prior, posterior and hierarchy by its name, with its options: the one place to add an entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from vae.errors import OptionError
from vae.options.architecture import ACTIVATIONS
from vae.options.declaration import AboveZero, Entry, Listed, OneOrMore, TwoOrMore, Widths, declared

# ---- likelihoods


@declared
class FixedVariance:
    """A fixed variance of every column, in squared units of y."""

    variance: AboveZero = 1.0


@declared
class VarianceFloor:
    """What is added to the learned variance, which would otherwise fall to zero."""

    min_variance: AboveZero = 1e-4


@declared
class TailFloors:
    """What is added to the learned scale, in units of y, and to the degrees of freedom: above 2 the variance is finite."""

    min_scale: AboveZero = 1e-2
    min_degrees: AboveZero = 1.0


@declared
class ScaleFloor:
    """What is added to the learned scale, of log y, which would otherwise fall to zero."""

    min_scale: AboveZero = 1e-2


@declared
class ShapeFloor:
    """What is added to the learned shape; from 1 on the density is bounded at 0."""

    min_shape: AboveZero = 1e-2


@declared
class ClassCount:
    """The number of levels: the values are 0, ..., levels - 1."""

    levels: TwoOrMore


@declared
class TrialCount:
    """The number of trials, which is the largest value."""

    trials: OneOrMore


@declared
class TypicalTotal:
    """A typical total of a row, which new rows have; log p is given each row's own."""

    library: AboveZero


@declared
class MaybeTotal:
    """A typical total of a row, or None; with one, the likelihood is dirichlet_multinomial of this library."""

    library: AboveZero | None = None


@declared
class PixelBins:
    """The values are 0, ..., levels - 1; min_scale is added to the learned scale, in units of all levels."""

    levels: TwoOrMore = 256
    min_scale: AboveZero = 1e-3


LIKELIHOODS: dict[str, Entry] = {
    "gaussian": Entry("Gaussian", FixedVariance),
    "gaussian_learned": Entry("LearnedGaussian", VarianceFloor),
    "gaussian_per_dimension": Entry("PerDimensionGaussian", VarianceFloor),
    "gaussian_heteroscedastic": Entry("HeteroscedasticGaussian", VarianceFloor),
    "student_t": Entry("StudentT", TailFloors),
    "log_normal": Entry("LogNormal", ScaleFloor),
    "gamma": Entry("Gamma", ShapeFloor),
    "beta": Entry("Beta"),
    "zero_one_inflated_beta": Entry("ZeroOneInflatedBeta"),
    "bernoulli": Entry("Bernoulli"),
    "categorical": Entry("Categorical", ClassCount, left_open=("levels",)),
    "ordinal": Entry("Ordinal", ClassCount, left_open=("levels",)),
    "binomial": Entry("Binomial", TrialCount, left_open=("trials",)),
    "poisson": Entry("Poisson"),
    "negative_binomial": Entry("NegativeBinomial"),
    "zero_inflated_negative_binomial": Entry("ZeroInflatedNegativeBinomial", MaybeTotal),
    "dirichlet_multinomial": Entry("DirichletMultinomial", TypicalTotal),
    "discretized_logistic": Entry("DiscretizedLogistic", PixelBins),
    "continuous_bernoulli": Entry("ContinuousBernoulli"),
}


def as_built(likelihood: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name and options of the likelihood that ``library`` makes of zero-inflated negative binomial counts.

    Their probabilities given their total have no closed form; with means that are shares of it they do not sum to 1.
    """
    if likelihood["name"] != "zero_inflated_negative_binomial":
        return likelihood
    library = likelihood.get("library")
    return {"name": likelihood["name"]} if library is None else {"name": "dirichlet_multinomial", "library": library}


# ---- priors and posteriors


@declared
class Components:
    """The number of components M of a mixture."""

    components: OneOrMore = 10


@declared
class PseudoInputs:
    """The number of pseudo-inputs M, each a component."""

    components: OneOrMore = 100


@declared
class Couplings:
    """How many couplings follow one another in a flow, and the widths of the network of each."""

    transforms: OneOrMore = 3
    hidden: Annotated[Widths, Field(min_length=1)] = (64, 64)


@declared
class ConditionalCouplings(Couplings):
    """Those of a flow that depends on a row through so many numbers."""

    context: OneOrMore = 16


PRIORS: dict[str, Entry] = {
    "standard_normal": Entry("StandardNormal"),
    "gaussian_mixture": Entry("GaussianMixture", Components),
    "vamp": Entry("VampPrior", PseudoInputs),
    "flow": Entry("FlowPrior", Couplings),
}
POSTERIORS: dict[str, Entry] = {
    "diagonal_gaussian": Entry("DiagonalGaussian"),
    "full_covariance_gaussian": Entry("FullCovarianceGaussian"),
    "flow": Entry("FlowPosterior", ConditionalCouplings),
}
PRIOR, POSTERIOR = "standard_normal", "diagonal_gaussian"  # where none is chosen

KL = Literal["monte_carlo", "closed_form"]  # how it is computed


# ---- layers of latents


@declared
class Between:
    """The hidden layers between each two neighbouring layers of latents, from the data on.

    Attributes:
        hidden: Their widths, a list for each pair of neighbours.
        activation: Between these.
    """

    hidden: Annotated[Sequence[Widths], Listed, Field(min_length=1)]
    activation: Literal[tuple(ACTIVATIONS)] = "tanh"  # type: ignore[valid-type]


HIERARCHIES: dict[str, Entry] = {"bottom_up": Entry("BottomUp", Between), "ladder": Entry("Ladder", Between)}


def require_layers(latent_dim: int | Sequence[int], hierarchy: Mapping[str, Any] | None) -> None:
    """Refuse layers of latents without networks between them, networks without layers, and not as many as there are pairs.

    Raises:
        OptionError: Naming what came and the remedy.
    """
    if isinstance(latent_dim, Sequence) == (hierarchy is None):
        raise OptionError(
            "latent_dim lists the dimensions of two or more layers where there is a hierarchy, such as [100, 50] and {name: "
            f"bottom_up, hidden: [[100, 100]]}}, and is one number where there is none; got {latent_dim} and {hierarchy}"
        )
    if not isinstance(latent_dim, Sequence) or hierarchy is None:
        return
    if len(latent_dim) < 2:
        raise OptionError(f"latent_dim must be one number, or a list of those of two or more layers; got {list(latent_dim)}")
    hidden = hierarchy.get("hidden", [])
    if len(hidden) != len(latent_dim) - 1:
        raise OptionError(
            f"hierarchy.hidden must list the widths between each two neighbours of the {len(latent_dim)} layers, as "
            f"{[[100, 100]] * (len(latent_dim) - 1)} does; got {hidden}"
        )
