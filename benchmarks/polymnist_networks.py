"""The networks of the papers on PolyMNIST: three convolutions of stride 2, and their mirror image.

The papers have images of 28 × 28 and maps of 4 × 4 after the third convolution; images of 16 × 16 have maps of 2 × 2.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

LAYERS = 3


def sizes(space: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return height and width before the first convolution and after each."""
    found = [space]
    for _ in range(LAYERS):
        found.append(tuple(math.ceil(length / 2) for length in found[-1]))
    return found


class Encoder(nn.Module):
    """Images (B, C, H, W) → (B, features)."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        channels = [shape[0], *(width * 2**level for level in range(LAYERS))]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1] * math.prod(sizes(shape[1:])[-1]), features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, features)."""
        return self.head(self.convolutions(x).flatten(1))


class Decoder(nn.Module):
    """Features (B, features) → images (B, C, H, W)."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        channels = [*(width * 2**level for level in reversed(range(LAYERS))), shape[0]]
        spaces = sizes(shape[1:])[::-1]
        self.top = (channels[0], *spaces[0])
        self.head = nn.Linear(features, math.prod(self.top))
        layers: list[nn.Module] = []
        for before, after, space in zip(channels[:-1], channels[1:], spaces[1:], strict=True):
            odd = tuple(1 - length % 2 for length in space)
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=odd)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, features) to (B, C, H, W)."""
        return self.convolutions(self.head(h).unflatten(1, self.top))
