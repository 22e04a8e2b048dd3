"""params.yaml as strict types: unknown keys, wrong types and values out of range are all reported in one message."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails
from ruamel.yaml.error import YAMLError

from pipeline.base.errors import InputError
from pipeline.base.files import from_yaml
from pipeline.params.sections import Data, Evaluate, Generate, Model, Section, Train
from pipeline.tables.kinds import KINDS
from vae.registry import HIERARCHIES, LIKELIHOODS, OBJECTIVES, POSTERIORS, PRIORS

PARAMS_FILE = Path("params.yaml")


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0, lt=2**32)
    threads: int = Field(ge=1, le=1024)
    data: Data
    model: Model
    train: Train
    evaluate: Evaluate
    generate: Generate

    def flat(self) -> dict[str, Any]:
        """Leaves by dotted path, as MLflow and DVC name them: ``model.latent_dim``."""
        return dict(leaves(self.model_dump()))


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: If the file is missing, is not YAML, or breaks a rule; one message lists all problems.
    """
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it with `git checkout {path}`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return check_params(content, str(path))


def check_params(content: Any, source: str = "params.yaml") -> Params:
    """The params that ``content``, as parsed from YAML, stands for.

    Raises:
        InputError: Listing every problem with its path.
    """
    problems = []
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        problems = [_describe(details) for details in error.errors()]
    problems += _conflicts(content)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{source} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:\n{lines}")
    return params


def _conflicts(content: Any) -> Iterator[str]:
    """Values that do not go together; in content that may have other problems too."""
    data, likelihood = _at(content, "data"), _at(content, "model", "likelihood")
    fractions = [_at(data, "fractions").get(split) for split in ("train", "valid", "test")]
    total = sum(f for f in fractions if isinstance(f, float | int))
    if None not in fractions and abs(total - 1) > 1e-6:
        yield f"data.fractions: train, valid and test must add up to 1, not {total:g}"
    bernoulli = likelihood.get("name") == "bernoulli"
    if data.get("binarize") is not None and not bernoulli:
        yield "data.binarize: makes values 0 and 1, which needs model.likelihood.name: bernoulli"
    if bernoulli and data.get("dequantize") is not None:
        yield (
            "model.likelihood.name: bernoulli needs values in {0, 1}: set data.dequantize: null, and data.binarize to a "
            "threshold, static or dynamic, unless the data is binary already"
        )
    for name in ("generative", "inference"):
        if _at(content, "model", name).get("norm") == "batch":
            if _at(content, "train").get("devices", 1) != 1:
                yield f"model.{name}.norm: batch needs whole batches on one device: set train.devices to 1, or norm to layer"
            if _at(content, "train").get("ema_decay") is not None:
                yield f"model.{name}.norm: batch has no averaged statistics: set train.ema_decay to null, or norm to layer"


def _at(content: Any, *steps: str) -> Mapping[str, Any]:
    for step in steps:
        content = content.get(step) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _describe(error: ErrorDetails) -> str:
    steps = [str(step) for step in error["loc"]]
    # pydantic inserts the variant's name behind a section chosen by name; users did not write it
    shown = [step for i, step in enumerate(steps) if not (i and step in _VARIANTS and _is_chosen_by_name(steps[:i]))]
    path = ".".join(shown) or "the file"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_nearest(steps)}"
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "value_error":
        return f"{path}: {message}" if shown else message
    if error["type"] == "union_tag_invalid":
        return f"{path}.name: must be one of {error['ctx']['expected_tags']}; got {error['ctx']['tag']!r}"
    if error["type"] == "model_type":
        return f"{path}: must be a mapping of keys to values; got {error['input']!r}"
    return f"{path}: {message[0].lower()}{message[1:]}; got {error['input']!r}"


_VARIANTS = {*LIKELIHOODS, *OBJECTIVES, *PRIORS, *POSTERIORS, *HIERARCHIES, "mixed", "number", "layers"}


def _is_chosen_by_name(steps: list[str]) -> bool:
    chosen = ("latent_dim", "likelihood", "objective", "prior", "posterior", "hierarchy", *KINDS)
    return steps[-1] in chosen or steps[-2:-1] == ["columns"]


def _nearest(steps: list[str]) -> str:
    known = sorted(set(_field_names(Params)))
    match = difflib.get_close_matches(steps[-1], known, n=1)
    return f"; did you mean {match[0]!r}?" if match and match[0] != steps[-1] else ""


def _field_names(section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield name
        for variant in _sections_in(field.annotation):
            yield from _field_names(variant)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            yield candidate


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by dotted path."""
    for key, value in content.items():
        if key == "columns":  # whose names may be any text
            yield f"{prefix}{key}", json.dumps(value, sort_keys=True)
        elif isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
