"""A model as two files: ``model.safetensors`` (weights, no metadata) and ``model.json`` (everything else, sorted keys).

Reading them executes no code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vae.errors import ModelFileError
from vae.model.encoding import Input
from vae.options.architecture import Architecture
from vae.options.registry import POSTERIOR, PRIOR

WEIGHTS, CARD = "model.safetensors", "model.json"
_REMEDY = "train again or restore both files"


class Card(BaseModel):
    """What ``model.json`` says: everything needed to rebuild the VAE around its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["evidence-vae-1"] = "evidence-vae-1"
    dtype: Literal["float32", "float64"] = "float32"
    data_dim: int
    latent_dim: int | list[int]
    likelihood: dict[str, Any]
    generative: Architecture
    inference: Architecture
    inputs: list[Input] | None = None
    shape: tuple[int, int, int] | None = None
    prior: dict[str, Any] = {"name": PRIOR}
    posterior: dict[str, Any] = {"name": POSTERIOR}
    hierarchy: dict[str, Any] | None = Field(None, exclude_if=lambda value: value is None)  # as older files have it
    columns: tuple[str, ...] | None = Field(default=None, exclude_if=lambda value: value is None)  # likewise

    @property
    def layers(self) -> tuple[int, ...]:
        """Latent dimensions of each layer, from the one next to the data on."""
        return (self.latent_dim,) if isinstance(self.latent_dim, int) else tuple(self.latent_dim)

    @property
    def latent_size(self) -> int:
        """K, the latent dimensions of all layers."""
        return sum(self.layers)

    def arguments(self) -> dict[str, Any]:
        """The arguments of `VAE`."""
        return {
            "generative_architecture": self.generative,
            "inference_architecture": self.inference,
            "data_dim": self.data_dim,
            "latent_dim": self.latent_dim,
            "likelihood": self.likelihood,
            "inputs": self.inputs,
            "shape": self.shape,
            "prior": self.prior,
            "posterior": self.posterior,
            "hierarchy": self.hierarchy,
        }


def save(folder: str | Path, card: Card, weights: Mapping[str, Tensor]) -> None:
    """Write both files into ``folder``, each complete or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().cpu() for name, value in weights.items()}, _partial(folder, WEIGHTS))
    _partial(folder, CARD).write_text(json.dumps(card.model_dump(), indent=2, sort_keys=True) + "\n")
    for name in (WEIGHTS, CARD):
        os.replace(_partial(folder, name), folder / name)


def load(folder: str | Path) -> tuple[Card, dict[str, Tensor]]:
    """Read both files.

    Raises:
        ModelFileError: If one is missing or damaged.
    """
    folder = Path(folder)
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder / name} is missing; {_REMEDY}")
    try:
        card = Card.model_validate_json((folder / CARD).read_bytes())
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, details['loc'])) or 'file'}: {details['msg']}" for details in error.errors())
        raise damaged_card(folder, "; ".join(problems)) from error
    try:
        return card, load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ModelFileError(f"{folder / WEIGHTS} is damaged or truncated: {error}; {_REMEDY}") from error


def damaged_card(folder: str | Path, problem: object) -> ModelFileError:
    """The error for a card that names no model that can be built."""
    return ModelFileError(f"{Path(folder) / CARD} is damaged or of another format: {problem}; {_REMEDY}")


def check(folder: str | Path, *, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights whose names, shapes or dtypes are not the model's.

    Raises:
        ModelFileError: Naming the first tensor that differs.
    """
    for name in sorted({*expected, *weights}):
        here, there = _describe(expected.get(name)), _describe(weights.get(name))
        if here != there:
            raise ModelFileError(
                f"{Path(folder) / WEIGHTS} is not of the model in {CARD}: tensor {name!r} should be {here} but is {there}; "
                + _REMEDY
            )


def _describe(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _partial(folder: Path, name: str) -> Path:
    return folder / f".{name}.partial"
