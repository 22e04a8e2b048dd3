"""The functions: f_w from latent to data, and the inference network from data to latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vae.registry import ACTIVATIONS, lookup


@dataclass(frozen=True)
class Architecture:
    """Hidden layers of a feed-forward network: their widths, in order, and the activation between them.

    ``Architecture(hidden=(200, 200), activation="tanh")`` has two hidden layers of width 200; ``hidden=()`` is affine.

    Raises:
        ValueError: If a width is below 1 or the activation is unknown.
    """

    hidden: tuple[int, ...] = (128,)
    activation: str = "tanh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        lookup("activation", ACTIVATIONS, self.activation)
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden widths must be at least 1; got {list(self.hidden)}")

    @classmethod
    def of(cls, architecture: Architecture | Mapping[str, Any]) -> Architecture:
        """An architecture from itself or from a mapping such as ``{"hidden": [200, 200]}``."""
        return architecture if isinstance(architecture, Architecture) else cls(**dict(architecture))


class Feedforward(nn.Sequential):
    """Fully connected network (..., input_dim) -> (..., output_dim), linear at its output.

    The output has the dtype of the input also under autocast, so that densities are never computed in half precision.
    """

    def __init__(self, architecture: Architecture, input_dim: int, output_dim: int) -> None:
        widths = (input_dim, *architecture.hidden)
        activation = getattr(nn, ACTIVATIONS[architecture.activation])
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        super().__init__(*layers, nn.Linear(widths[-1], output_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers."""
        return super().forward(x).to(x.dtype)
