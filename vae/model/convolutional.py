"""Convolutional networks for images of any height and width.

Rows are images pixel by pixel, and of each pixel its channels: (..., H * W * C).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate
from typing_extensions import override

from vae.model.networks import Feedforward, between
from vae.options.architecture import Architecture, Shape


class Encoder(nn.Module):
    """Images (..., H * W * C) -> (..., output_dim): each convolution halves height and width; then fully connected layers.

    Args:
        architecture: With ``channels``.
        shape: Height, width and channels of the images.
        output_dim: Number of outputs.
    """

    def __init__(self, architecture: Architecture, shape: Shape, output_dim: int) -> None:
        super().__init__()
        self.shape = shape
        maps = (shape[2], *architecture.channels)
        layers: list[nn.Module] = []
        for before, after in pairwise(maps):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=architecture.biased)]
            layers += between(architecture, after, maps=True)
            layers += [Residual(architecture, after) for _ in range(architecture.residual_blocks)]
        self.convolutions = nn.Sequential(*layers)
        height, width = architecture.sizes(shape)[-1]
        self.output = Feedforward(architecture, maps[-1] * height * width, output_dim)

    @override
    def forward(self, y: Tensor) -> Tensor:
        """Apply all layers; the output has the dtype of y also under autocast."""
        images = y.reshape(-1, *self.shape).permute(0, 3, 1, 2)
        features = self.convolutions(images).flatten(start_dim=1).to(y.dtype)
        output: Tensor = self.output(features)
        return output.reshape(*y.shape[:-1], -1)


class Decoder(nn.Module):
    """Latents (..., input_dim) -> (..., features * H * W * C), the mirror of `Encoder`.

    Sizes double by repeating pixels before a convolution, which leaves no checkerboard (Odena et al. 2016, "Deconvolution and
    checkerboard artifacts").

    Args:
        architecture: With ``channels``, those of the encoder; they are gone through backwards.
        input_dim: Number of inputs.
        shape: Height, width and channels of the images.
        features: Outputs for each value of an image.
    """

    def __init__(self, architecture: Architecture, input_dim: int, shape: Shape, features: int) -> None:
        super().__init__()
        self.shape, self.features = shape, features
        self.sizes = architecture.sizes(shape)[::-1]
        self.maps = architecture.channels[::-1]
        height, width = self.sizes[0]
        self.input = Feedforward(architecture, input_dim, self.maps[0] * height * width)
        outputs = (*self.maps[1:], features * shape[2])
        biased = [architecture.biased] * (len(outputs) - 1) + [True]
        steps = [self._step(architecture, *sizes) for sizes in zip(self.maps, outputs, biased, strict=True)]
        self.before, self.convolutions = (nn.ModuleList(layers) for layers in zip(*steps, strict=True))

    def _step(self, architecture: Architecture, before: int, after: int, biased: bool) -> tuple[nn.Module, nn.Module]:
        blocks = [Residual(architecture, before) for _ in range(architecture.residual_blocks)]
        first = nn.Sequential(*between(architecture, before, maps=True), *blocks)
        return first, nn.Conv2d(before, after, 3, padding=1, bias=biased)

    @override
    def forward(self, z: Tensor) -> Tensor:
        """Apply all layers; the output has the dtype of z also under autocast."""
        maps = self.input(z.reshape(-1, z.shape[-1])).reshape(-1, self.maps[0], *self.sizes[0])
        for before, convolution, size in zip(self.before, self.convolutions, self.sizes[1:], strict=True):
            maps = convolution(interpolate(before(maps), size=size, mode="nearest"))
        images = maps.reshape(len(maps), self.features, self.shape[2], *self.shape[:2]).permute(0, 1, 3, 4, 2)
        return images.reshape(*z.shape[:-1], -1).to(z.dtype)

    @property
    def last(self) -> nn.Module:
        """The layer whose bias `pooled` rows decide."""
        return self.convolutions[-1]

    def pooled(self, y: Tensor) -> Tensor:
        """Images y (N, H * W * C) as rows (N * H * W, C): a channel has one output bias for all pixels."""
        return y.reshape(-1, self.shape[2])


class Residual(nn.Module):
    """x + two convolutions of it (He et al. 2016, "Identity mappings in deep residual networks")."""

    def __init__(self, architecture: Architecture, channels: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1, bias=architecture.biased) for _ in range(2)]
        steps = [[*between(architecture, channels, maps=True), convolution] for convolution in convolutions]
        self.layers = nn.Sequential(*(layer for step in steps for layer in step))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Maps of the shape of x, (N, C, h, w)."""
        output: Tensor = x + self.layers(x)
        return output
