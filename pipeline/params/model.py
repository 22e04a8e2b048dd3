"""``model`` in params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.params.section import Section, choice
from vae.registry import (
    ACTIVATIONS,
    HIERARCHIES,
    LIKELIHOODS,
    NORMS,
    OUTPUT_BIASES,
    POSTERIORS,
    PRIORS,
    idle_option,
    require_layers,
)


class Network(Section):
    """``model.generative`` and ``model.inference``."""

    hidden: list[Annotated[int, Field(ge=1)]]
    activation: Literal[tuple(ACTIVATIONS)] = "tanh"  # type: ignore[valid-type]
    channels: list[Annotated[int, Field(ge=1)]] = Field([])
    residual_blocks: int = Field(0, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    norm: Literal[tuple(NORMS)] = "none"  # type: ignore[valid-type]
    residual: bool = False

    @model_validator(mode="after")
    def _with_convolutions(self) -> Self:
        if self.residual_blocks and not self.channels:
            raise ValueError(f"residual_blocks follow convolutions: set channels, or 0; got {self.residual_blocks}")
        if problem := idle_option(self.hidden, self.channels, self.dropout, self.norm, self.residual):
            raise ValueError(problem)
        return self


OfColumn = choice(LIKELIHOODS)


class Mixed(Section):
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
        Annotated[int, Field(ge=1), Tag("number")] | Annotated[list[Annotated[int, Field(ge=1)]], Tag("layers")],
        Discriminator(lambda value: "layers" if isinstance(value, list) else "number"),
    ]
    likelihood: choice(LIKELIHOODS, Mixed)  # type: ignore[valid-type]
    prior: choice(PRIORS) = Field({"name": "standard_normal"}, validate_default=True)  # type: ignore[valid-type]
    posterior: choice(POSTERIORS) = Field({"name": "diagonal_gaussian"}, validate_default=True)  # type: ignore[valid-type]
    hierarchy: choice(HIERARCHIES) | None = None  # type: ignore[valid-type]
    generative: Network
    inference: Network
    output_bias: Literal[OUTPUT_BIASES] = "data"  # type: ignore[valid-type]

    @property
    def latent_size(self) -> int:
        """K, the latent dimensions of all layers."""
        return self.latent_dim if isinstance(self.latent_dim, int) else sum(self.latent_dim)

    @model_validator(mode="after")
    def _with_layers(self) -> Self:
        require_layers(self.latent_dim, None if self.hierarchy is None else self.hierarchy.model_dump())
        return self
