"""Convolutional networks for images of any size of at least 4 × 4."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def pyramid(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Spatial sizes from the image down, halved until the shorter side is 4 or less; at least one halving.

    Raises:
        ValueError: the image is smaller than 4 × 4.
    """
    _, height, width = shape
    if min(height, width) < 4:
        raise ValueError(
            f"image of {height} × {width} pixels: expected at least 4 × 4 for convolutional networks"
        )
    sizes = [(height, width), (height // 2, width // 2)]
    while min(sizes[-1]) > 4:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


class ConvolutionalEncoder(nn.Module):
    """Images (B, C, H, W) → (B, features): convolutions of stride 2 whose channels double, then one linear map."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(shape)
        channels = [shape[0], *(width * 2**level for level in range(len(sizes) - 1))]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Linear(channels[-1] * sizes[-1][0] * sizes[-1][1], features)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, features)."""
        hidden = self.convolutions(x.contiguous(memory_format=torch.channels_last))
        return self.head(hidden.flatten(1))


class ConvolutionalDecoder(nn.Module):
    """Features (B, features) → images (B, C, H, W): the encoder's mirror image."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(shape)[::-1]
        channels = [*(width * 2**level for level in reversed(range(len(sizes) - 1))), shape[0]]
        self.top = (channels[0], *sizes[0])
        self.head = nn.Linear(features, channels[0] * sizes[0][0] * sizes[0][1])
        layers: list[nn.Module] = []
        for level, (inputs, outputs) in enumerate(pairwise(channels)):
            odd = (sizes[level + 1][0] % 2, sizes[level + 1][1] % 2)
            layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, output_padding=odd)]
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, h: Tensor) -> Tensor:
        """(B, features) → (B, C, H, W)."""
        hidden = self.head(h).unflatten(1, self.top).contiguous(memory_format=torch.channels_last)
        return self.convolutions(hidden)
