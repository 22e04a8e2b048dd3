"""What each section of params.yaml is made of: strict types, with the ranges of their values."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import MISSING, fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, create_model
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from vae.options.declaration import Entry


class Section(BaseModel):
    """A mapping in params.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Common(Section):
    """What every stage reads of params.yaml."""

    seed: int = Field(ge=0, lt=2**32)

    @property
    def threads_used(self) -> int | None:
        """CPU threads of the stage's process; None where the size of its work decides."""
        return 1


def section(
    options: type[Any],
    *,
    required: Container[str] = (),
    left_open: Container[str] = (),
    without: Container[str] = (),
    **others: Any,
) -> Any:
    """A section of the options that the library declares.

    Args:
        options: The declaration.
        required: Those that have to be there although they have a default.
        left_open: Those that may be null, which they are by default.
        without: Those that are no keys of params.yaml.
        others: More keys, which come first: type and default of each.
    """
    hints, keys = get_type_hints(options, include_extras=True), dict(others)
    for option in fields(options):
        hint, default = hints[option.name], ... if option.default is MISSING else option.default
        if option.name in left_open:
            keys[option.name] = (hint | None, None)
        elif option.name not in without:
            keys[option.name] = (hint, ... if option.name in required else default)
    return create_model(options.__name__, __base__=Section, **keys)


OF_ANOTHER = "option_of_another_name"  # type of the error that says so


def choice(entries: Mapping[str, Entry], *others: type[Section]) -> Any:
    """A section ``{name: ..., options}``, with the options that the entry called ``name`` declares.

    Options that only other names have are an error of the type `OF_ANOTHER`, by which whoever reads a file can drop them.
    """
    variants = [
        section(entry.options, left_open=entry.left_open, name=(Literal[name], ...)) for name, entry in entries.items()
    ]
    options = {get_args(made.model_fields["name"].annotation)[0]: set(made.model_fields) for made in (*variants, *others)}

    def refuse(content: Any) -> Any:
        if not isinstance(content, Mapping) or content.get("name") not in options:
            return content
        strange = [key for key in content if key not in options[content["name"]]]
        owners = {key: names for key in strange if (names := [name for name, keys in options.items() if key in keys])}
        if owners:
            raise PydanticCustomError(OF_ANOTHER, "options of another name", {"owners": owners})
        return content

    union: Any = reduce(or_, [*variants, *others])
    chosen = Annotated[union, Discriminator("name")] if len(options) > 1 else union
    return Annotated[chosen, BeforeValidator(refuse)]
