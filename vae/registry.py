"""Everything that can be chosen by name, with its options: the one place to add an entry.

An entry names a class and declares the keyword options that it takes beside its dimensions: type, default, range and
meaning. ``params.yaml`` is checked against these declarations, and `VAE` builds from them. This module imports no torch, so
that checking parameters stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType, ModuleType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field


class Entry(NamedTuple):
    """A class by its name, and its options as pydantic field definitions ``{option: (type, Field(default, ...))}``."""

    class_name: str
    options: Mapping[str, tuple[Any, Any]] = MappingProxyType({})

    def build(self, module: ModuleType, *args: Any, **options: Any) -> Any:
        """Construct the class, which ``module`` defines."""
        return getattr(module, self.class_name)(*args, **options)


_FLOOR = (float, Field(1e-4, gt=0, description="added to the learned variance, which would otherwise fall to zero"))
_MIN_SCALE = (float, Field(1e-2, gt=0, description="added to the learned scale, which would otherwise fall to zero"))
_MIN_DEGREES = (float, Field(1.0, gt=0, description="added to the learned degrees of freedom"))
_MIN_SHAPE = (float, Field(1e-2, gt=0, description="added to the learned shape; from 1 on the density is bounded at 0"))
_LEVELS = (
    int | None,
    Field(None, ge=2, description="the values are 0, ..., levels - 1; in params, null for those of the data"),
)
_GREYS = (int, Field(256, ge=2, description="the values are 0, ..., levels - 1"))
_PIXEL_SCALE = (float, Field(1e-3, gt=0, description="added to the learned scale, in units of all levels"))
_LIBRARY = (float | None, Field(None, gt=0, description="with one, the likelihood is dirichlet_multinomial of this library"))

LIKELIHOODS: dict[str, Entry] = {
    "gaussian": Entry("Gaussian", {"variance": (float, Field(1.0, gt=0, description="fixed variance of every column"))}),
    "gaussian_learned": Entry("LearnedGaussian", {"min_variance": _FLOOR}),
    "gaussian_per_dimension": Entry("PerDimensionGaussian", {"min_variance": _FLOOR}),
    "gaussian_heteroscedastic": Entry("HeteroscedasticGaussian", {"min_variance": _FLOOR}),
    "student_t": Entry("StudentT", {"min_scale": _MIN_SCALE, "min_degrees": _MIN_DEGREES}),
    "log_normal": Entry("LogNormal", {"min_scale": _MIN_SCALE}),
    "gamma": Entry("Gamma", {"min_shape": _MIN_SHAPE}),
    "beta": Entry("Beta"),
    "zero_one_inflated_beta": Entry("ZeroOneInflatedBeta"),
    "bernoulli": Entry("Bernoulli"),
    "categorical": Entry("Categorical", {"levels": _LEVELS}),
    "ordinal": Entry("Ordinal", {"levels": _LEVELS}),
    "binomial": Entry(
        "Binomial",
        {"trials": (int | None, Field(None, ge=1, description="the largest value; in params, null for that of the data"))},
    ),
    "poisson": Entry("Poisson"),
    "negative_binomial": Entry("NegativeBinomial"),
    "zero_inflated_negative_binomial": Entry("ZeroInflatedNegativeBinomial", {"library": _LIBRARY}),
    "dirichlet_multinomial": Entry(
        "DirichletMultinomial",
        {
            "library": (
                float,
                Field(gt=0, description="a typical total of a row, which new rows have; log p is given each row's own"),
            )
        },
    ),
    "discretized_logistic": Entry("DiscretizedLogistic", {"levels": _GREYS, "min_scale": _PIXEL_SCALE}),
    "continuous_bernoulli": Entry("ContinuousBernoulli"),
}

_SAMPLES = (int, Field(1, ge=1, description="Monte Carlo samples S per example"))
_IMPORTANCE_SAMPLES = (int, Field(5, ge=1, description="importance samples K of a bound"))
_ELBO = {
    "samples": _SAMPLES,
    "kl": (Literal["monte_carlo", "closed_form"], Field("monte_carlo", description="how it is computed")),
}
_SCHEDULE = Literal["constant", "linear", "cyclic"]

OBJECTIVES: dict[str, Entry] = {
    "elbo": Entry("ELBO", _ELBO),
    "beta_elbo": Entry(
        "BetaELBO",
        {
            **_ELBO,
            "beta": (float, Field(1.0, ge=0, description="weight of the KL")),
            "schedule": (_SCHEDULE, Field("constant", description="how the weight rises from 0")),
            "epochs": (float, Field(10.0, gt=0, description="of a linear rise, or of a cycle")),
        },
    ),
    "free_bits": Entry(
        "FreeBits",
        {
            **_ELBO,
            "nats": (float, Field(0.1, ge=0, description="that each group of latent dimensions has for free")),
            "group": (int, Field(1, ge=1, description="latent dimensions in a group")),
        },
    ),
    "sticking_the_landing": Entry("StickingTheLanding", {"samples": _SAMPLES}),
    "iwae": Entry("IWAE", {"samples": _IMPORTANCE_SAMPLES}),
    "dreg": Entry("DReG", {"samples": _IMPORTANCE_SAMPLES}),
    "piwae": Entry(
        "PIWAE",
        {
            "samples": _IMPORTANCE_SAMPLES,
            "averages": (int, Field(8, ge=1, description="bounds M per example, from M times K draws")),
        },
    ),
}

_COMPONENTS = (int, Field(10, ge=1, description="components M"))
_PSEUDO_INPUTS = (int, Field(100, ge=1, description="pseudo-inputs M, each a component"))
_FLOW = {
    "transforms": (int, Field(3, ge=1, description="couplings one after the other")),
    "hidden": (
        list[Annotated[int, Field(ge=1)]],
        Field([64, 64], min_length=1, description="widths of the network of each coupling"),
    ),
}

PRIORS: dict[str, Entry] = {
    "standard_normal": Entry("StandardNormal"),
    "gaussian_mixture": Entry("GaussianMixture", {"components": _COMPONENTS}),
    "vamp": Entry("VampPrior", {"components": _PSEUDO_INPUTS}),
    "flow": Entry("FlowPrior", _FLOW),
}

POSTERIORS: dict[str, Entry] = {
    "diagonal_gaussian": Entry("DiagonalGaussian"),
    "full_covariance_gaussian": Entry("FullCovarianceGaussian"),
    "flow": Entry("FlowPosterior", {**_FLOW, "context": (int, Field(16, ge=1, description="numbers that it gets of a row"))}),
}

OUTPUT_BIASES = ("data", "random")  # where the generative network's output begins

SCHEDULES = ("constant", "cosine", "burda")  # of the learning rate: functions in `vae.training.learning_rates`

ACTIVATIONS: dict[str, str] = {"tanh": "Tanh", "relu": "ReLU", "softplus": "Softplus", "silu": "SiLU", "gelu": "GELU"}
NORMS: dict[str, tuple[str, str] | None] = {  # of vectors, of maps
    "none": None,
    "batch": ("BatchNorm", "MapBatchNorm"),
    "layer": ("LayerNorm", "MapLayerNorm"),
}

_BETWEEN = {
    "hidden": (
        list[list[Annotated[int, Field(ge=1)]]],
        Field(min_length=1, description="widths of the hidden layers between each two neighbouring layers of latents"),
    ),
    "activation": (Literal[tuple(ACTIVATIONS)], Field("tanh", description="between these")),
}

HIERARCHIES: dict[str, Entry] = {"bottom_up": Entry("BottomUp", _BETWEEN), "ladder": Entry("Ladder", _BETWEEN)}


def as_built(likelihood: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name and options of the likelihood that ``library`` makes of zero-inflated negative binomial counts.

    Their probabilities given their total have no closed form; with means that are shares of it they do not sum to 1.
    """
    if likelihood["name"] != "zero_inflated_negative_binomial":
        return likelihood
    library = likelihood.get("library")
    return {"name": likelihood["name"]} if library is None else {"name": "dirichlet_multinomial", "library": library}


def idle_option(hidden: Sequence[int], channels: Sequence[int], dropout: float, norm: str, residual: bool) -> str | None:
    """What is wrong with an option of a network that has no layer to act on; None if each has."""
    widths = list(hidden)
    if (dropout or norm != "none") and not (widths or channels):
        return "norm and dropout stand between layers: set hidden or channels, or leave them out; got hidden []"
    if norm == "layer" and 1 in widths:
        return (
            f"norm 'layer' makes a lone number 0: set hidden to widths of 2 or more, or norm to 'batch'; got hidden {widths}"
        )
    if residual and not any(one == other for one, other in pairwise(widths)):
        return (
            "residual is for neighbouring hidden layers of equal width, as in [200, 200]: make two equal, or set residual to "
            f"false; got hidden {widths}"
        )
    return None


def lookup(family: str, entries: Mapping[str, Any], name: str) -> Any:
    """The entry called ``name``.

    Raises:
        ValueError: If there is none; the message lists the names there are.
    """
    if name not in entries:
        raise ValueError(f"{family} must be one of {', '.join(sorted(entries))}; got {name!r}")
    return entries[name]


def build(family: str, entries: Mapping[str, Entry], module: ModuleType, of: Mapping[str, Any], *args: Any) -> Any:
    """The class called ``of["name"]``, constructed with its other options.

    Raises:
        ValueError: If there is no such class.
    """
    options = dict(of)
    entry: Entry = lookup(family, entries, options.pop("name"))
    return entry.build(module, *args, **options)


def require_layers(latent_dim: int | Sequence[int], hierarchy: Mapping[str, Any] | None) -> None:
    """Refuse layers of latents without networks between them, networks without layers, and not as many as there are pairs.

    Raises:
        ValueError: Naming what came and the remedy.
    """
    if isinstance(latent_dim, Sequence) == (hierarchy is None):
        raise ValueError(
            "latent_dim lists the dimensions of two or more layers where there is a hierarchy, such as [100, 50] and {name: "
            f"bottom_up, hidden: [[100, 100]]}}, and is one number where there is none; got {latent_dim} and {hierarchy}"
        )
    if isinstance(latent_dim, Sequence) and hierarchy is not None:
        _require_pairs(list(latent_dim), hierarchy.get("hidden", []))


def _require_pairs(latent_dim: list[int], hidden: Sequence[Any]) -> None:
    if len(latent_dim) < 2:
        raise ValueError(f"latent_dim must be one number, or a list of those of two or more layers; got {latent_dim}")
    if len(hidden) != len(latent_dim) - 1:
        raise ValueError(
            f"hierarchy.hidden must list the widths between each two neighbours of the {len(latent_dim)} layers, as "
            f"{[[100, 100]] * (len(latent_dim) - 1)} does; got {hidden}"
        )
