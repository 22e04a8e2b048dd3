"""The functions: f_w from latent to data, and the inference network from data to latent."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from vae.model import layers
from vae.options.architecture import ACTIVATIONS, NORMS, Architecture


def between(architecture: Architecture, width: int, *, maps: bool = False) -> list[nn.Module]:
    """What stands between a layer of so many outputs, or channels of maps, and the next: norm, activation, dropout."""
    made: list[nn.Module] = [ACTIVATIONS[architecture.activation].build(nn)]
    if norms := NORMS[architecture.norm]:
        made.insert(0, norms[maps].build(layers, width))
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
