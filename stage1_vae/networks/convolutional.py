"""Convolutional networks for sequences, images and volumes of any size of at least 4 along each axis."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LAYOUTS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
"""The layout in memory that convolutions over so many axes are fastest in."""


def pyramid(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Sizes of the space of (C, *space), halved until the shortest axis is 4 or less; at least one halving.

    Raises:
        ValueError: an axis is shorter than 4.
    """
    space = shape[1:]
    if min(space) < 4:
        found, expected = (" × ".join(map(str, sizes)) for sizes in (space, [4] * len(space)))
        raise ValueError(f"size of a modality: found {found}, expected at least {expected} for convolutional networks")
    sizes = [space, tuple(size // 2 for size in space)]
    while min(sizes[-1]) > 4:
        sizes.append(tuple(size // 2 for size in sizes[-1]))
    return sizes


class StridedEncoder(nn.Module):
    """Values (B, C, *space) → (B, features): convolutions of stride 2 whose channels double, then one linear map.

    A subclass says what refines the values after each convolution: a module Refinement(axes, channels) that keeps their
    shape and ends in a ReLU.
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
        """(B, C, *space) → (B, features)."""
        return self.head(self.convolutions(x.contiguous(memory_format=self.layout)).flatten(1))


class StridedDecoder(nn.Module):
    """Features (B, features) → values (B, C, *space): the encoder's mirror image."""

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
        """(B, features) → (B, C, *space)."""
        return self.convolutions(self.head(h).unflatten(1, self.top).contiguous(memory_format=self.layout))


class Rectifier(nn.ReLU):
    """A ReLU, whatever the axes and channels."""

    def __init__(self, axes: int, channels: int) -> None:
        super().__init__()


class ResidualBlock(nn.Module):
    """x ↦ ReLU(x + f(ReLU(x))) with two convolutions in f (He et al. 2015, arXiv 1512.03385).

    Nothing is normalised across a batch: rows stay independent of one another.
    """

    def __init__(self, axes: int, channels: int) -> None:
        super().__init__()
        first, second = (CONVOLUTIONS[axes](channels, channels, 3, 1, 1) for _ in range(2))
        self.branch = nn.Sequential(nn.ReLU(), first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) → (B, C, *space)."""
        return (x + self.branch(x)).relu()


class ConvolutionalEncoder(StridedEncoder):
    """A ReLU after each convolution."""

    refine = Rectifier


class ConvolutionalDecoder(StridedDecoder):
    """A ReLU before each convolution."""

    refine = Rectifier


class ResidualEncoder(StridedEncoder):
    """A residual block after each convolution."""

    refine = ResidualBlock


class ResidualDecoder(StridedDecoder):
    """A residual block before each convolution."""

    refine = ResidualBlock
