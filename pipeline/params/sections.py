"""The sections of params.yaml as strict types, with the ranges of their values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from pipeline.tables.kinds import AnyKind
from vae.registry import (
    ACTIVATIONS,
    HIERARCHIES,
    LIKELIHOODS,
    NORMS,
    OBJECTIVES,
    OUTPUT_BIASES,
    POSTERIORS,
    PRIORS,
    SCHEDULES,
    Entry,
    idle_option,
    require_layers,
)

Transformation = Literal["none", "standardize", "log", "quantile"]


class Section(BaseModel):
    """A mapping in params.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _choice(entries: Mapping[str, Entry], *others: type[Section]) -> Any:
    """A section ``{name: ..., options}``, with the options that the entry called ``name`` declares."""
    variants = [
        create_model(entry.class_name, __base__=Section, name=(Literal[name], ...), **entry.options)  # type: ignore[call-overload]
        for name, entry in entries.items()
    ]
    union: Any = reduce(or_, [*variants, *others])
    return Annotated[union, Field(discriminator="name")] if len(variants) > 1 else union


class Fractions(Section):
    """``data.fractions``: the shares of the rows."""

    train: float = Field(gt=0, lt=1)
    valid: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)


class Files(Section):
    """``data.files``: the files of the splits, in the folder ``data.path``; a split without one gets its share of train's."""

    train: str
    valid: str | None = None
    test: str | None = None


class SplitBy(Section):
    """``data.split``: a column that says the split, or whose equal values stay together, or are in all splits alike."""

    column: str | None = None
    group: str | None = None
    stratify: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(given := [name for name, value in self if value is not None]) != 1:
            raise ValueError(f"must name one of column, group and stratify; got {' and '.join(given) or 'none'}")
        return self


class ColumnOptions(Section):
    """``data.columns.NAME``: what is known of a column. A kind alone may stand for all of it."""

    kind: AnyKind | None = None
    order: Annotated[list[str | int | float], Field(min_length=2)] | None = None
    other: bool = False
    transform: Transformation | None = None
    dequantize: Annotated[float, Field(gt=0)] | None = None

    @property
    def declared(self) -> AnyKind | None:
        """The kind, or that which the other options are for."""
        if self.kind is None and (self.transform is not None or self.dequantize is not None):
            return "continuous"
        if self.kind is None and self.other:
            return "categorical"
        return "ordinal" if self.kind is None and self.order is not None else self.kind

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, content: Any) -> Any:
        return {"kind": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        for given, kinds, names in (
            (self.transform or self.dequantize, ("continuous",), "transform and dequantize"),
            (self.order, ("ordinal", "categorical", "binary"), "order"),
            (self.other, ("categorical",), "other"),
        ):
            if given and self.declared not in kinds:
                raise ValueError(f"{names} is for columns that are {' or '.join(kinds)}; this one is declared {self.declared}")
        if self.order is not None and len(set(map(str, self.order))) < len(self.order):
            raise ValueError(f"order must name each value once; got {self.order}")
        return self


class Data(Section):
    """``data``: what to read and how to prepare it."""

    path: str = Field(min_length=1)
    files: Files | None = None
    key: str | None = None
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    header: bool = True
    exclude: list[str] = []
    missing: list[str | int | float] = []
    columns: dict[str, ColumnOptions] = {}
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)] | None = None
    units: str = "units of the data"
    fractions: Fractions
    split: SplitBy | None = None
    dequantize: float | None = Field(None, gt=0)
    binarize: float | Literal["static", "dynamic"] | None = None
    scale: Transformation = "standardize"

    @field_validator("shape")
    @classmethod
    def _grey_or_colour(cls, shape: list[int] | None) -> list[int] | None:
        if shape is not None and len(shape) == 3 and shape[2] not in COLOURS:
            raise ValueError(f"must be [height, width], or [height, width, channels] with 1 or 3 channels; got {shape}")
        return shape


COLOURS = (1, 3)


class Network(Section):
    """``model.generative`` and ``model.inference``."""

    hidden: list[Annotated[int, Field(ge=1)]]
    activation: Literal[tuple(ACTIVATIONS)] = "tanh"  # type: ignore[valid-type]
    channels: list[Annotated[int, Field(ge=1)]] = []
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


OfColumn = _choice(LIKELIHOODS)


class Mixed(Section):
    """``model.likelihood`` of columns of several kinds: the likelihood of each kind, and of single columns by name."""

    name: Literal["mixed"]
    continuous: OfColumn = Field({"name": "gaussian_per_dimension"}, validate_default=True)  # type: ignore[valid-type]
    count: OfColumn = Field({"name": "negative_binomial"}, validate_default=True)  # type: ignore[valid-type]
    binary: OfColumn = Field({"name": "bernoulli"}, validate_default=True)  # type: ignore[valid-type]
    categorical: OfColumn = Field({"name": "categorical"}, validate_default=True)  # type: ignore[valid-type]
    ordinal: OfColumn = Field({"name": "ordinal"}, validate_default=True)  # type: ignore[valid-type]
    columns: dict[str, OfColumn] = {}  # type: ignore[valid-type]


class Model(Section):
    """``model``: the VAE."""

    latent_dim: Annotated[
        Annotated[int, Field(ge=1), Tag("number")] | Annotated[list[Annotated[int, Field(ge=1)]], Tag("layers")],
        Discriminator(lambda value: "layers" if isinstance(value, list) else "number"),
    ]
    likelihood: _choice(LIKELIHOODS, Mixed)  # type: ignore[valid-type]
    prior: _choice(PRIORS) = Field({"name": "standard_normal"}, validate_default=True)  # type: ignore[valid-type]
    posterior: _choice(POSTERIORS) = Field({"name": "diagonal_gaussian"}, validate_default=True)  # type: ignore[valid-type]
    hierarchy: _choice(HIERARCHIES) | None = None  # type: ignore[valid-type]
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


class Train(Section):
    """``train``: how it is fitted."""

    objective: _choice(OBJECTIVES)  # type: ignore[valid-type]
    max_epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    schedule: Literal[SCHEDULES] = "constant"  # type: ignore[valid-type]
    adam_epsilon: float = Field(1e-8, gt=0)
    ema_decay: float | None = Field(None, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    patience: int | None = Field(None, ge=1)
    gradient_clip_norm: float | None = Field(None, gt=0)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: int = Field(1, ge=1)
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed"] = "32-true"
    hide: float | None = Field(None, ge=0, le=1)
    memory_gib: float = Field(4.0, gt=0)
    deterministic: bool = True


class Annealing(Section):
    """``evaluate.annealing``: annealed importance sampling, its bounds on simulated rows, and its checks."""

    examples: int | None = Field(None, ge=1)
    chains: int = Field(16, ge=1)
    temperatures: int = Field(250, ge=2)
    leapfrog_steps: int = Field(2, ge=1)
    extra: float = Field(6.0, ge=0)
    bounds_examples: int = Field(100, ge=2)

    @model_validator(mode="before")
    @classmethod
    def _every_row_is_checked(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and "check_examples" in content:
            raise ValueError("check_examples is no more, as every annealed row is checked: remove it")
        return content


class Imputation(Section):
    """``evaluate.imputation``: what is filled in where values are missing, and how well."""

    samples: int = Field(1000, ge=1)
    draws: int = Field(100, ge=2)
    examples: int = Field(500, ge=1)
    hidden_share: float = Field(0.2, gt=0, lt=1)


class Evaluate(Section):
    """``evaluate``: how well it does on the test rows."""

    estimators: list[Literal["prior", "importance", "annealed", "bounds", "exact"]] | None = Field(None, min_length=1)
    samples: int = Field(ge=1)
    ladder: list[int] | None = None
    prior_samples: int = Field(100_000, ge=1)
    elbo_samples: int = Field(100, ge=1)
    annealing: Annealing = Field(default_factory=lambda: Annealing.model_validate({}))
    imputation: Imputation = Field(default_factory=lambda: Imputation.model_validate({}))
    tolerance: float = Field(0.2, gt=0)
    diagnostics_examples: int = Field(50, ge=2)
    mixture_components: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [2, 4, 8, 16]

    @field_validator("ladder", mode="after")
    @classmethod
    def _rungs_divide(cls, ladder: list[int] | None, info: ValidationInfo) -> list[int] | None:
        for smaller, larger in pairwise([*(ladder or []), info.data.get("samples", 0)]):
            if smaller < 1 or (larger and (larger < smaller or larger % smaller)):
                raise ValueError(
                    "each rung must be at least 1 and divide the next, and the last evaluate.samples (as [1, 10, 100] and "
                    f"1000 do); got {smaller} before {larger}"
                )
        return ladder

    @field_validator("estimators", mode="after")
    @classmethod
    def _one_estimates(cls, estimators: list[str] | None) -> list[str] | None:
        if estimators is not None and set(estimators) == {"bounds"}:
            raise ValueError("bounds are of simulated rows; add prior, importance, annealed or exact for the test rows")
        return estimators

    @property
    def rungs(self) -> list[int]:
        """The ladder below ``samples``: as given, or the powers of ten of which each divides the next and ``samples``."""
        if self.ladder is not None:
            return [rung for rung in self.ladder if rung < self.samples]
        powers = [10**k for k in range(len(str(self.samples)))]
        return [rung for rung in powers if rung < self.samples and self.samples % rung == 0]


class Generate(Section):
    """``generate``: what is drawn from it."""

    samples: int = Field(ge=1)
