"""Convolutional networks for sequences, images and volumes with a size of at least 4 along each axis."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from postprior.stage1_vae.networks.transposed import TransposedConvolution

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: TransposedConvolution, 3: nn.ConvTranspose3d}
LAYOUTS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
"""Number of axes → the memory layout in which convolutions over that many axes are fastest."""


def pyramid(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the sizes of (C, *space), halved until the shortest axis is at most 4; there is at least one halving.

    Raises:
        ValueError: an axis is shorter than 4.
    """
    space = shape[1:]
    if min(space) < 4:
        size, minimum = (" × ".join(map(str, sizes)) for sizes in (space, [4] * len(space)))
        raise ValueError(f"size of a modality: found {size}, expected at least {minimum} for convolutional networks")
    sizes = [space, tuple(size // 2 for size in space)]
    while min(sizes[-1]) > 4:
        sizes.append(tuple(size // 2 for size in sizes[-1]))
    return sizes


class StridedEncoder(nn.Module):
    """Values (B, C, *space) → (B, features): convolutions of stride 2 with doubling channels, then one linear map.

    A subclass sets `refine`, the class of the module after each convolution. It is constructed as `refine(axes,
    channels)`, keeps the shape of the values and ends with a ReLU.
    """

    refine: ClassVar[type[nn.Module]]

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(shape)
        axes = len(sizes[0])
        channels = [shape[0], *(width * 2**level for level in range(len(sizes) - 1))]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [CONVOLUTIONS[axes](inputs, outputs, 4, 2, 1), self.refine(axes, outputs)]
        self.layout = LAYOUTS[axes]
        self.convolutions = nn.Sequential(*layers).to(memory_format=self.layout)  # type: ignore[call-overload]
        self.head = nn.Linear(channels[-1] * math.prod(sizes[-1]), features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *space) to (B, features)."""
        return self.head(self.convolutions(x.contiguous(memory_format=self.layout)).flatten(1))


class StridedDecoder(nn.Module):
    """Features (B, features) → values (B, C, *space): the mirror image of the encoder."""

    refine: ClassVar[type[nn.Module]]

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(shape)[::-1]
        axes = len(sizes[0])
        channels = [*(width * 2**level for level in reversed(range(len(sizes) - 1))), shape[0]]
        self.top = (channels[0], *sizes[0])
        self.head = nn.Linear(features, math.prod(self.top))
        layers: list[nn.Module] = []
        for (inputs, outputs), size in zip(pairwise(channels), sizes[1:], strict=True):
            odd = tuple(length % 2 for length in size)
            layers += [
                self.refine(axes, inputs),
                TRANSPOSED[axes](inputs, outputs, 4, 2, 1, output_padding=odd),
            ]
        self.layout = LAYOUTS[axes]
        self.convolutions = nn.Sequential(*layers).to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, features) to (B, C, *space)."""
        return self.convolutions(self.head(h).unflatten(1, self.top).contiguous(memory_format=self.layout))


class Rectifier(nn.ReLU):
    """A ReLU with the constructor arguments of `refine`, which it ignores."""

    def __init__(self, axes: int, channels: int) -> None:
        super().__init__()


class ResidualBlock(nn.Module):
    """x ↦ ReLU(x + f(ReLU(x))), where f has two convolutions (He et al. 2015, arXiv 1512.03385).

    There is no batch normalisation, so rows are independent of one another.
    """

    def __init__(self, axes: int, channels: int) -> None:
        super().__init__()
        first, second = (CONVOLUTIONS[axes](channels, channels, 3, 1, 1) for _ in range(2))
        self.branch = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *space) to (B, C, *space)."""
        return (x + self.branch(x)).relu()


class ConvolutionalEncoder(StridedEncoder):
    """Encoder with a ReLU after each convolution."""

    refine = Rectifier


class ConvolutionalDecoder(StridedDecoder):
    """Decoder with a ReLU before each convolution."""

    refine = Rectifier


class ResidualEncoder(StridedEncoder):
    """Encoder with a residual block after each convolution."""

    refine = ResidualBlock


class ResidualDecoder(StridedDecoder):
    """Decoder with a residual block before each convolution."""

    refine = ResidualBlock
