"""``evaluate`` in params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.params.section import Common, Section


class AnnealingSettings(Section):
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


class ImputationSettings(Section):
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
    annealing: AnnealingSettings = Field(default_factory=lambda: AnnealingSettings.model_validate({}))
    imputation: ImputationSettings = Field(default_factory=lambda: ImputationSettings.model_validate({}))
    tolerance: float = Field(0.2, gt=0)
    diagnostics_examples: int = Field(50, ge=2)
    mixture_components: list[Annotated[int, Field(ge=1)]] = Field([2, 4, 8, 16], min_length=1)

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


class EvaluateParams(Common):
    """What the stage evaluate reads of params.yaml.

    Attributes:
        workers: Processes that share the work, as many as there are cores by default. Nothing that comes out depends on it,
            so that it is no param of DVC's, nor of MLflow's.
    """

    workers: int | None = Field(None, ge=1)
    evaluate: Evaluate
