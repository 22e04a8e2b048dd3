"""Reading params.yaml: unknown keys, wrong types and values out of range are all reported in one message."""

from __future__ import annotations

import difflib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml
from pipeline.params.section import OF_ANOTHER, Section

PARAMS_FILE = Path("params.yaml")

T = TypeVar("T", bound=Section)


def read(path: Path = PARAMS_FILE) -> Any:
    """The content of params.yaml, unchecked.

    Raises:
        InputError: If the file is missing or is not YAML.
    """
    try:
        return from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it with `git checkout {path}`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def load(content: Any, kind: type[T]) -> T:
    """The sections of params.yaml that a stage reads; the others may be anything.

    Raises:
        InputError: If one breaks a rule; one message lists all problems.
    """
    return checked(sections_of(content, kind), kind)


def sections_of(content: Any, kind: type[Section]) -> Any:
    """The sections of params.yaml that are those of ``kind``."""
    return {name: content[name] for name in kind.model_fields if name in content} if isinstance(content, Mapping) else content


def checked(content: Any, kind: type[T], source: str = "params.yaml", others: Iterable[str] = ()) -> T:
    """What ``content``, as parsed from YAML, stands for.

    Raises:
        InputError: Listing every problem with its path, and the ``others``.
    """
    problems, (content, _) = [], without_dropped(content, kind)
    try:
        params = kind.model_validate(content)
    except ValidationError as error:
        problems = [_describe(details, content, kind) for details in error.errors()]
    problems += others
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{source} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:\n{lines}")
    return params


def without_dropped(content: Any, kind: type[Section]) -> tuple[Any, list[str]]:
    """The content without options that only another name of their section has, and a sentence on each.

    So that ``-S model.prior.name=standard_normal`` will do where params.yaml has the options of another prior. A key that is
    no option of any name stays, and is refused.
    """
    said = list[str]()
    while True:
        try:
            kind.model_validate(content)
        except ValidationError as error:
            for details in (strange := [details for details in error.errors() if details["type"] == OF_ANOTHER]):
                path, owners = list(_written(details, content)), details["ctx"]["owners"]
                content = _without(content, path, owners)
                where, name = ".".join(path), details["input"]["name"]
                said += [f"{where}.{key} is dropped: it is for {', '.join(of)}, not {name}" for key, of in owners.items()]
            if strange:
                continue
        return content, said


def _without(content: Mapping[str, Any], path: Sequence[str], keys: Container[str]) -> dict[str, Any]:
    """Nested mappings without these keys of the one at ``path``."""
    if not path:
        return {key: value for key, value in content.items() if key not in keys}
    return {**content, path[0]: _without(content[path[0]], path[1:], keys)}


def _describe(error: ErrorDetails, content: Any, kind: type[Section]) -> str:
    shown = list(_written(error, content))
    path = ".".join(shown) or "the file"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_nearest(shown[-1], kind)}"
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "value_error":
        return f"{path}: {message}" if shown else message
    if error["type"] == "union_tag_invalid":
        return f"{path}.name: must be one of {error['ctx']['expected_tags']}; got {error['ctx']['tag']!r}"
    if error["type"] == "model_type":
        return f"{path}: must be a mapping of keys to values; got {error['input']!r}"
    return f"{path}: {message[0].lower()}{message[1:]}; got {error['input']!r}"


_TAGS = ("number", "layers")  # of what model.latent_dim may be


def _written(error: ErrorDetails, content: Any) -> Iterator[str]:
    """The steps to what is wrong, without those that pydantic puts behind a section chosen by name, which no user wrote."""
    for step in error["loc"]:
        if isinstance(content, Mapping) and step in content:
            content = content[step]
        elif isinstance(content, list) and isinstance(step, int):
            content = content[step] if step < len(content) else None
        elif step in _TAGS or (isinstance(content, Mapping) and step == content.get("name")):
            continue
        yield str(step)


def _nearest(name: str, kind: type[Section]) -> str:
    match = difflib.get_close_matches(name, sorted(set(_field_names(kind))), n=1)
    return f"; did you mean {match[0]!r}?" if match and match[0] != name else ""


def _field_names(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Section):
                yield from _field_names(part)


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by dotted path."""
    for key, value in content.items():
        if key == "columns":  # whose names may be any text
            yield f"{prefix}{key}", json.dumps(value, sort_keys=True)
        elif isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
