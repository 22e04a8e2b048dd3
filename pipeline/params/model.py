"""``model`` in params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.params.section import Section, choice, section
from vae.options.architecture import Architecture
from vae.options.declaration import OneOrMore
from vae.options.registry import HIERARCHIES, LIKELIHOODS, POSTERIOR, POSTERIORS, PRIOR, PRIORS, require_layers
from vae.settings import OUTPUT_BIAS, OutputBias


class Network(section(Architecture, required=["hidden"])):  # type: ignore[misc]
    """``model.generative`` and ``model.inference``."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        Architecture(**self.model_dump())  # which refuses options that do not go together
        return self


OfColumn = choice(LIKELIHOODS)


class ByKind(Section):
    """``model.likelihood`` of columns of several kinds: the likelihood of each kind, and of single columns by name."""

    name: Literal["mixed"]
    continuous: OfColumn = Field({"name": "gaussian_per_dimension"}, validate_default=True)  # type: ignore[valid-type]
    count: OfColumn = Field({"name": "negative_binomial"}, validate_default=True)  # type: ignore[valid-type]
    binary: OfColumn = Field({"name": "bernoulli"}, validate_default=True)  # type: ignore[valid-type]
    categorical: OfColumn = Field({"name": "categorical"}, validate_default=True)  # type: ignore[valid-type]
    ordinal: OfColumn = Field({"name": "ordinal"}, validate_default=True)  # type: ignore[valid-type]
    columns: dict[str, OfColumn] = Field({})  # type: ignore[valid-type]


class Model(Section):
    """``model``: the VAE."""

    latent_dim: Annotated[
        Annotated[OneOrMore, Tag("number")] | Annotated[list[OneOrMore], Tag("layers")],
        Discriminator(lambda value: "layers" if isinstance(value, list) else "number"),
    ]
    likelihood: choice(LIKELIHOODS, ByKind)  # type: ignore[valid-type]
    prior: choice(PRIORS) = Field({"name": PRIOR}, validate_default=True)  # type: ignore[valid-type]
    posterior: choice(POSTERIORS) = Field({"name": POSTERIOR}, validate_default=True)  # type: ignore[valid-type]
    hierarchy: choice(HIERARCHIES) | None = None  # type: ignore[valid-type]
    generative: Network
    inference: Network
    output_bias: OutputBias = OUTPUT_BIAS

    @property
    def latent_size(self) -> int:
        """K, the latent dimensions of all layers."""
        return self.latent_dim if isinstance(self.latent_dim, int) else sum(self.latent_dim)

    @model_validator(mode="after")
    def _with_layers(self) -> Self:
        require_layers(self.latent_dim, None if self.hierarchy is None else self.hierarchy.model_dump())
        return self
