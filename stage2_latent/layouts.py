"""Layouts of code vectors: conversion between concatenated code vectors and their blocks, and masks of both."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Block

Layout = tuple[Block, ...]


def coordinates(layout: Layout, blocks: Tensor) -> Tensor:
    """Expand a mask (or index) per block, (…, blocks), to one per coordinate, (…, D)."""
    sizes = torch.tensor([block.size for block in layout], device=blocks.device)
    return blocks.repeat_interleave(sizes, dim=-1)


def known_blocks(layout: Layout, known: Tensor) -> Tensor:
    """Return the mask of blocks, (blocks,), from the mask of coordinates, (D,); the inverse of `coordinates`."""
    ends = torch.tensor([block.size for block in layout], device=known.device).cumsum(0)
    return known[ends - 1]


def split_blocks(layout: Layout, z: Tensor, chosen: Tensor | None = None) -> dict[str, Tensor]:
    """Split code vectors (…, D) into their blocks, or into those marked in `chosen` (blocks,): name → (…, *shape)."""
    parts = z.split([block.size for block in layout], dim=-1)
    included = [True] * len(layout) if chosen is None else chosen.tolist()
    return {
        block.name: part.reshape(*z.shape[:-1], *block.shape)
        for block, part, include in zip(layout, parts, included, strict=True)
        if include
    }


def join_blocks(layout: Layout, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Join blocks {name: (N, *shape)} to code vectors (N, D), 0 elsewhere, and return also their mask (D,)."""
    unknown = [name for name in parts if name not in {block.name for block in layout}]
    if unknown or not parts:
        names = ", ".join(block.name for block in layout)
        raise ValueError(f"blocks: found {unknown[0] if unknown else 'none'}, expected some of {names}")
    first = next(iter(parts.values()))
    vectors = []
    for block in layout:
        value = parts.get(block.name, first.new_zeros(len(first), *block.shape))
        if tuple(value.shape) != (len(first), *block.shape):
            expected = (len(first), *block.shape)
            raise ValueError(f"block {block.name}: found shape {tuple(value.shape)}, expected {expected}")
        vectors.append(value.reshape(len(first), block.size))
    known = torch.tensor([block.name in parts for block in layout], device=first.device)
    return torch.cat(vectors, dim=1), coordinates(layout, known)
