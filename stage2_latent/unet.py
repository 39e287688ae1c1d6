"""A small U-Net over the pixels of images or the voxels of volumes, modulated by a vector (`Refiner`)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Number of axes → the memory layout in which convolutions over that many axes are fastest."""
LEVELS = 3
"""Most levels of resolution; a level is left out if its shortest axis would have fewer than `SHORTEST` values."""
SHORTEST = 4
GROUP = 8
"""Channels per group of the group normalisation."""


class UNet(nn.Module):
    """Values (B, inputs, *space) and a vector (B, features) → values (B, outputs, *space); 0 if untrained.

    Residual blocks on the way down and up at each of a few resolutions, with connections between blocks of the same
    resolution (Ronneberger et al. 2015, arXiv 1505.04597), group normalisation, and gains and shifts of the channels
    from the vector, as in diffusion models (Dhariwal & Nichol 2021, arXiv 2105.05233, appendix).

    Args:
        space: sizes of the axes, 2 or 3 of them.
        inputs, outputs: channels.
        features: length of the vector.
        width: channels at the finest resolution, rounded up to whole groups; each coarser one has twice as many.
    """

    def __init__(self, space: tuple[int, ...], inputs: int, outputs: int, features: int, width: int) -> None:
        super().__init__()
        axes, levels = len(space), 1
        while levels < LEVELS and -(-min(space) // 2**levels) >= SHORTEST:
            levels += 1
        convolution, width = CONVOLUTIONS[axes], -(-width // GROUP) * GROUP
        channels = [width * 2**level for level in range(levels)]
        steps = list(pairwise(channels))
        self.layout = LAYOUTS[axes]
        self.first = convolution(inputs, width, 3, 1, 1)
        self.down = nn.ModuleList(Block(axes, each, each, features) for each in channels)
        self.coarser = nn.ModuleList(convolution(fine, coarse, 3, 2, 1) for fine, coarse in steps)
        self.finer = nn.ModuleList(convolution(coarse, fine, 1) for fine, coarse in steps)
        self.up = nn.ModuleList(Block(axes, 2 * fine, fine, features) for fine in channels[:-1])
        self.norm, self.last = nn.GroupNorm(width // GROUP, width), convolution(width, outputs, 3, 1, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=self.layout)  # type: ignore[call-overload]

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Map (B, inputs, *space) and (B, features) to (B, outputs, *space)."""
        h, finer = self.first(x.contiguous(memory_format=self.layout)), []
        for block, halve in zip(self.down, (*self.coarser, None), strict=True):
            h = block(h, vector)
            if halve is not None:
                finer.append(h)
                h = halve(h)
        for block, project, skip in reversed(list(zip(self.up, self.finer, finer, strict=True))):
            h = nn.functional.interpolate(project(h), skip.shape[2:])  # nearest: odd sizes as well
            h = block(torch.cat([h, skip], 1), vector)
        output: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return output


class Block(nn.Module):
    """(B, inputs, *space) → (B, outputs, *space): a residual block, modulated by a vector between its convolutions."""

    def __init__(self, axes: int, inputs: int, outputs: int, features: int) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[axes]
        self.before, self.between = (nn.GroupNorm(size // GROUP, size) for size in (inputs, outputs))
        self.first, self.second = (convolution(size, outputs, 3, 1, 1) for size in (inputs, outputs))
        self.modulate = nn.Linear(features, 2 * outputs)
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)
        for parameter in (*self.second.parameters(), *self.modulate.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Map (B, inputs, *space) and (B, features) to (B, outputs, *space)."""
        h = self.first(nn.functional.silu(self.before(x)))
        modulation = self.modulate(vector)
        gain, shift = modulation.view(*modulation.shape, *[1] * (x.dim() - 2)).chunk(2, 1)
        h = self.second(nn.functional.silu(self.between(h) * (1 + gain) + shift))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + h
