"""Layouts of code vectors: blocks side by side, what is known of them, and the vectors they make."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Block

Layout = tuple[Block, ...]


def coordinates(layout: Layout, blocks: Tensor) -> Tensor:
    """Coordinates of marked blocks: (…, blocks) → (…, D)."""
    sizes = torch.tensor([block.size for block in layout], device=blocks.device)
    return blocks.repeat_interleave(sizes, dim=-1)


def known_blocks(layout: Layout, known: Tensor) -> Tensor:
    """The blocks (blocks,) whose coordinates are `known` (D,), as `coordinates` gave them."""
    ends = torch.tensor([block.size for block in layout], device=known.device).cumsum(0)
    return known[ends - 1]


def split_blocks(layout: Layout, z: Tensor, chosen: Tensor | None = None) -> dict[str, Tensor]:
    """The blocks of code vectors (…, D), or those chosen (blocks,): name → (…, *shape)."""
    parts = z.split([block.size for block in layout], dim=-1)
    here = [True] * len(layout) if chosen is None else chosen.tolist()
    return {
        block.name: part.reshape(*z.shape[:-1], *block.shape)
        for block, part, wanted in zip(layout, parts, here, strict=True)
        if wanted
    }


def join_blocks(layout: Layout, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Code vectors (N, D) of some blocks {name: (N, *shape)}, 0 elsewhere, and the mask (D,) of their coordinates."""
    unknown = [name for name in parts if name not in {block.name for block in layout}]
    if unknown or not parts:
        names = ", ".join(block.name for block in layout)
        raise ValueError(f"blocks: found {unknown[0] if unknown else 'none'}, expected some of {names}")
    some = next(iter(parts.values()))
    vectors = []
    for block in layout:
        value = parts.get(block.name, some.new_zeros(len(some), *block.shape))
        if tuple(value.shape) != (len(some), *block.shape):
            expected = (len(some), *block.shape)
            raise ValueError(f"block {block.name}: shape {tuple(value.shape)}, expected {expected}")
        vectors.append(value.reshape(len(some), block.size))
    known = torch.tensor([block.name in parts for block in layout], device=some.device)
    return torch.cat(vectors, dim=1), coordinates(layout, known)
