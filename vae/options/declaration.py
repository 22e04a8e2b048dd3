"""How options are declared, and how what is chosen by name is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import wraps
from types import ModuleType
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticKnownError

from vae.errors import OptionError

AtLeastZero = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
OneOrMore = Annotated[int, Field(ge=1)]
TwoOrMore = Annotated[int, Field(ge=2)]
T = TypeVar("T")


def _listed(value: Any) -> Any:
    """Refuse what is no list or tuple in pydantic's words for lists."""
    if not isinstance(value, list | tuple):
        raise PydanticKnownError("list_type")
    return value


Listed = BeforeValidator(_listed)
Widths = Annotated[Sequence[OneOrMore], Listed]


@dataclass_transform(frozen_default=True)
def declared(options: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen dataclass, which is checked as it is constructed.

    A value of another type, or out of its range, is an `OptionError` whose message names the option, the rule and what came.
    NumPy's numbers stand for Python's.

    Raises:
        TypeError: If constructed with an option that it has not.
    """
    checked: Any = dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))(options)
    construct, names = checked.__init__, [field.name for field in fields(checked)]

    @wraps(construct)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        if unknown := sorted(values.keys() - names):
            raise TypeError(f"{unknown[0]} is no option of {options.__name__}, which has {', '.join(names) or 'none'}")
        given = {**dict(zip(names, args, strict=False)), **values}
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        try:
            construct(self, *args[len(names) :], **plain)
        except ValidationError as error:
            raise OptionError("; ".join(_sentence(details) for details in error.errors())) from None

    checked.__init__ = __init__
    made: type[T] = checked
    return made


def _sentence(error: ErrorDetails) -> str:
    """What is wrong, in the words of all messages here."""
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, error["loc"]))
    if error["type"] in ("missing", "missing_argument"):
        return f"{name} must be given"
    rule = re.sub(r"^\w+ should", "must", error["msg"]).replace(" after validation", "")
    rule = rule.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    if error["type"] == "literal_error":
        rule = f"must be one of {error['ctx']['expected'].replace(' or ', ', ')}".replace("'", "")
    return f"{name} {rule}; got {error['input']!r}"


@declared
class NoOptions:
    """The options of what has none."""


class Entry(NamedTuple):
    """What a name stands for.

    Attributes:
        class_name: The class or function that is called, by its name in its module.
        options: The declaration of the options that it takes beside its dimensions.
        left_open: Those that whoever describes a model may leave to the data.
    """

    class_name: str
    options: type[Any] = NoOptions
    left_open: tuple[str, ...] = ()

    def build(self, module: ModuleType, *args: Any, **options: Any) -> Any:
        """Call what ``module`` has under this name."""
        return getattr(module, self.class_name)(*args, **options)


def lookup(family: str, entries: Mapping[str, Any], name: str) -> Any:
    """The entry called ``name``.

    Raises:
        OptionError: If there is none; the message lists the names there are.
    """
    if name not in entries:
        raise OptionError(f"{family} must be one of {', '.join(sorted(entries))}; got {name!r}")
    return entries[name]


def build(family: str, entries: Mapping[str, Entry], module: ModuleType, named: Mapping[str, Any], *args: Any) -> Any:
    """The class called ``named["name"]``, constructed with its other options.

    Raises:
        OptionError: If there is no such class, or an option is out of its range.
    """
    options = dict(named)
    return lookup(family, entries, options.pop("name")).build(module, *args, **options)
