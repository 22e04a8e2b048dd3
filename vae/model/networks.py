"""The functions: f_w from latent to data, and the inference network from data to latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vae.model import layers
from vae.registry import ACTIVATIONS, NORMS, idle_option, lookup

Shape = tuple[int, int, int]  # height, width and channels of an image


@dataclass(frozen=True)
class Architecture:
    """Layers of a network, and the activation between them.

    ``Architecture(hidden=(200, 200), activation="tanh")`` has two hidden layers of width 200; ``hidden=()`` is affine.
    ``Architecture(channels=(32, 64), hidden=(256,))`` is convolutional, for images: see `vae.model.convolutional`.

    Attributes:
        hidden: Widths of the fully connected layers, in order.
        activation: A name in `vae.registry.ACTIVATIONS`.
        channels: Of the convolutions, from the image on, each of which halves height and width; none by default.
        residual_blocks: After each convolution.
        dropout: Probability with which a number between layers, of maps a channel, is dropped in training.
        norm: Before each activation, a name in `vae.registry.NORMS`.
        residual: Whether a fully connected layer adds to what it gets, where it is as wide as the hidden layer before it.

    Raises:
        ValueError: If a width is below 1, a name is unknown, or an option is out of its range or has no layer to act on.
    """

    hidden: tuple[int, ...] = (128,)
    activation: str = "tanh"
    channels: tuple[int, ...] = ()
    residual_blocks: int = 0
    dropout: float = 0.0
    norm: str = "none"
    residual: bool = False

    def __post_init__(self) -> None:
        lookup("activation", ACTIVATIONS, self.activation)
        lookup("norm", NORMS, self.norm)
        for name, what in (("hidden", "hidden widths"), ("channels", "channels")):
            widths = tuple(getattr(self, name))
            object.__setattr__(self, name, widths)
            if any(width < 1 for width in widths):
                raise ValueError(f"{what} must be at least 1; got {list(widths)}")
        if self.residual_blocks < 0 or (self.residual_blocks and not self.channels):
            raise ValueError(f"residual_blocks must be 0, or more where there are channels; got {self.residual_blocks}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1; got {self.dropout}")
        if problem := idle_option(self.hidden, self.channels, self.dropout, self.norm, self.residual):
            raise ValueError(problem)

    @property
    def biased(self) -> bool:
        """Whether layers before a norm have a bias: batch norm would take it away again."""
        return self.norm != "batch"

    def sizes(self, shape: Shape) -> list[tuple[int, int]]:
        """Height and width of an image, and after each convolution."""
        found = [shape[:2]]
        for _ in self.channels:
            height, width = found[-1]
            found.append((-(-height // 2), -(-width // 2)))
        return found

    def widest(self, shape: Shape | None) -> int:
        """The most numbers that a layer has between input and output."""
        maps = self.sizes(shape) if shape else []
        return max([1, *self.hidden, *(c * h * w for c, (h, w) in zip(self.channels, maps, strict=False))])

    @classmethod
    def of(cls, architecture: Architecture | Mapping[str, Any]) -> Architecture:
        """An architecture from itself or from a mapping such as ``{"hidden": [200, 200]}``."""
        return architecture if isinstance(architecture, Architecture) else cls(**dict(architecture))


def between(architecture: Architecture, width: int, *, maps: bool = False) -> list[nn.Module]:
    """What stands between a layer of so many outputs, or channels of maps, and the next: norm, activation, dropout."""
    made: list[nn.Module] = [getattr(nn, ACTIVATIONS[architecture.activation])()]
    if names := NORMS[architecture.norm]:
        made.insert(0, getattr(layers, names[maps])(width))
    if architecture.dropout:
        made.append(layers.MapDropout(architecture.dropout) if maps else layers.Dropout(architecture.dropout))
    return made


def linear(before: int, after: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer, whose weight (after, before) lies in memory column by column where it has fewer rows than columns.

    The gradient by the weight is then computed as a product with more rows than columns, between which oneMKL's threads divide
    the work well: 784 -> 200 for a batch of 20 takes two threads a third of the time.
    """
    layer = nn.Linear(before, after, bias=bias)
    if before > after:
        layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
    return layer


class Feedforward(nn.Sequential):
    """Fully connected network (..., input_dim) -> (..., output_dim), linear at its output.

    The output has the dtype of the input also under autocast, so that densities are never computed in half precision.
    """

    def __init__(self, architecture: Architecture, input_dim: int, output_dim: int) -> None:
        widths = (input_dim, *architecture.hidden)
        made: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths)):
            layer = [linear(before, after, bias=architecture.biased), *between(architecture, after)]
            made += [layers.Skip(*layer)] if architecture.residual and number and before == after else layer
        super().__init__(*made, linear(widths[-1], output_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers."""
        rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])  # once, rather than in every layer
        output: Tensor = super().forward(rows)
        return (output if x.ndim == 2 else output.reshape(*x.shape[:-1], -1)).to(x.dtype)

    @property
    def last(self) -> nn.Module:
        """The layer whose bias `pooled` rows decide."""
        return self[-1]

    def pooled(self, y: Tensor) -> Tensor:
        """Rows y (N, D) such that each column has an output bias of its own: themselves."""
        return y
