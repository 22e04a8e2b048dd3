"""Everything that can be chosen by name, with its options: the one place to add an entry.

An entry names a class and declares the keyword options that it takes beside its dimensions: type, default, range and
meaning. ``params.yaml`` is checked against these declarations, and `VAE` builds from them. This module imports no torch, so
that checking parameters stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Literal, NamedTuple

from pydantic import Field


class Entry(NamedTuple):
    """A class by its name, and its options as pydantic field definitions ``{option: (type, Field(default, ...))}``."""

    class_name: str
    options: Mapping[str, tuple[Any, Any]] = MappingProxyType({})

    def build(self, module: ModuleType, *args: Any, **options: Any) -> Any:
        """Construct the class, which ``module`` defines."""
        return getattr(module, self.class_name)(*args, **options)


_FLOOR = (float, Field(1e-4, gt=0, description="added to the learned variance, which would otherwise fall to zero"))

LIKELIHOODS: dict[str, Entry] = {
    "gaussian": Entry("Gaussian", {"variance": (float, Field(1.0, gt=0, description="fixed variance of every column"))}),
    "gaussian_learned": Entry("LearnedGaussian", {"min_variance": _FLOOR}),
    "gaussian_per_dimension": Entry("PerDimensionGaussian", {"min_variance": _FLOOR}),
    "bernoulli": Entry("Bernoulli"),
}

OBJECTIVES: dict[str, Entry] = {
    "elbo": Entry(
        "ELBO",
        {
            "samples": (int, Field(1, ge=1, description="Monte Carlo samples S per example")),
            "kl": (Literal["monte_carlo", "closed_form"], Field("monte_carlo", description="how the KL is computed")),
        },
    ),
}

ACTIVATIONS: dict[str, str] = {"tanh": "Tanh", "relu": "ReLU", "softplus": "Softplus", "silu": "SiLU", "gelu": "GELU"}


def lookup(family: str, entries: Mapping[str, Any], name: str) -> Any:
    """The entry called ``name``.

    Raises:
        ValueError: If there is none; the message lists the names there are.
    """
    if name not in entries:
        raise ValueError(f"{family} must be one of {', '.join(sorted(entries))}; got {name!r}")
    return entries[name]
