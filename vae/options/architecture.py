"""The layers of a network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from vae.errors import OptionError
from vae.options.declaration import BelowOne, Entry, Widths, declared

Shape = tuple[int, int, int]  # height, width and channels of an image

ACTIVATIONS: dict[str, Entry] = {  # of `torch.nn`
    "tanh": Entry("Tanh"),
    "relu": Entry("ReLU"),
    "softplus": Entry("Softplus"),
    "silu": Entry("SiLU"),
    "gelu": Entry("GELU"),
}
NORMS: dict[str, tuple[Entry, Entry] | None] = {  # of `vae.model.layers`: for vectors, for maps
    "none": None,
    "batch": (Entry("BatchNorm"), Entry("MapBatchNorm")),
    "layer": (Entry("LayerNorm"), Entry("MapLayerNorm")),
}


@declared
class Architecture:
    """Layers of a network, and the activation between them.

    ``Architecture(hidden=(200, 200), activation="tanh")`` has two hidden layers of width 200; ``hidden=()`` is affine.
    ``Architecture(channels=(32, 64), hidden=(256,))`` is convolutional, for images: see `vae.model.convolutional`.

    Attributes:
        hidden: Widths of the fully connected layers, in order.
        activation: A name in `ACTIVATIONS`.
        channels: Of the convolutions, from the image on, each of which halves height and width; none by default.
        residual_blocks: After each convolution.
        dropout: Probability with which a number between layers, of maps a channel, is dropped in training.
        norm: Before each activation, a name in `NORMS`.
        residual: Whether a fully connected layer adds to what it gets, where it is as wide as the hidden layer before it.

    Raises:
        OptionError: If an option is out of its range, or has no layer to act on.
    """

    hidden: Widths = (128,)
    activation: Literal[tuple(ACTIVATIONS)] = "tanh"  # type: ignore[valid-type]
    channels: Widths = ()
    residual_blocks: Annotated[int, Field(ge=0)] = 0
    dropout: BelowOne = 0.0
    norm: Literal[tuple(NORMS)] = "none"  # type: ignore[valid-type]
    residual: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "channels", tuple(self.channels))
        widths = list(self.hidden)
        if self.residual_blocks and not self.channels:
            raise OptionError(
                f"residual_blocks follow convolutions: set channels, or residual_blocks to 0; got {self.residual_blocks}"
            )
        if (self.dropout or self.norm != "none") and not (widths or self.channels):
            raise OptionError(
                "norm and dropout stand between layers: set hidden or channels, or leave them out; got hidden []"
            )
        if self.norm == "layer" and 1 in widths:
            raise OptionError(
                "norm 'layer' makes a lone number 0: set hidden to widths of 2 or more, or norm to 'batch'; got hidden "
                f"{widths}"
            )
        if self.residual and not any(before == after for before, after in pairwise(widths)):
            raise OptionError(
                "residual is for neighbouring hidden layers of equal width, as in [200, 200]: make two equal, or set residual "
                f"to false; got hidden {widths}"
            )

    @property
    def biased(self) -> bool:
        """Whether layers before a norm have a bias: batch norm would take it away again."""
        return self.norm != "batch"

    def sizes(self, shape: Shape) -> list[tuple[int, int]]:
        """Height and width of an image, and after each convolution."""
        sizes = [shape[:2]]
        for _ in self.channels:
            height, width = sizes[-1]
            sizes.append((-(-height // 2), -(-width // 2)))
        return sizes

    def widest(self, shape: Shape | None) -> int:
        """The most numbers that a layer has between input and output."""
        maps = self.sizes(shape) if shape else []
        return max([1, *self.hidden, *(c * h * w for c, (h, w) in zip(self.channels, maps, strict=False))])

    @classmethod
    def of(cls, architecture: Architecture | Mapping[str, Any]) -> Architecture:
        """An architecture from itself or from a mapping such as ``{"hidden": [200, 200]}``."""
        return architecture if isinstance(architecture, Architecture) else cls(**architecture)
