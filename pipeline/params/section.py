"""What each section of params.yaml is made of: strict types, with the ranges of their values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

if TYPE_CHECKING:
    from vae.registry import Entry


class Section(BaseModel):
    """A mapping in params.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Common(Section):
    """What every stage reads of params.yaml."""

    seed: int = Field(ge=0, lt=2**32)
    threads: int = Field(ge=1, le=1024)


def choice(entries: Mapping[str, Entry], *others: type[Section]) -> Any:
    """A section ``{name: ..., options}``, with the options that the entry called ``name`` declares."""
    variants = [
        create_model(entry.class_name, __base__=Section, name=(Literal[name], ...), **entry.options)  # type: ignore[call-overload]
        for name, entry in entries.items()
    ]
    union: Any = reduce(or_, [*variants, *others])
    return Annotated[union, Field(discriminator="name")] if len(variants) > 1 else union
