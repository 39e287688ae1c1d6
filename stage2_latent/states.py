"""Tools for the state of a density: checks of its tensors, and prefixes for networks and densities inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
V = TypeVar("V")


def check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, str], **sizes: int) -> None:
    """Raise a ValueError unless the named tensors are there with their shapes, and floats of one type.

    Args:
        tensors: the state of a density.
        shapes: by name, one word per axis, and `int64` at the end for whole numbers: "K T D", "K int64". A word is a
            size, or a letter, which means the same size in all shapes.
        sizes: sizes of letters that are already known.
    """
    floats = next(tensor.dtype for name, tensor in tensors.items() if name in shapes and "int64" not in shapes[name])
    for name, words in shapes.items():
        if name not in tensors:
            raise ValueError(f"tensor {name} is missing")
        found, axes = tensors[name], [word for word in words.split() if word != "int64"]
        expected = torch.int64 if "int64" in words else floats
        if len(axes) == found.dim():
            sizes |= {word: size for word, size in zip(axes, found.shape, strict=True) if word not in sizes}
        shape = tuple(int(word) if word.isdigit() else sizes.get(word, word) for word in axes)
        if shape != found.shape or expected != found.dtype or not (found.dtype in FLOATS or expected == torch.int64):
            raise ValueError(
                f"tensor {name} has shape {tuple(found.shape)} and type {found.dtype}, expected {shape} and {expected}"
            )


FLOATS = (torch.float32, torch.float64)


def add_prefix(prefix: str, values: Mapping[str, V]) -> dict[str, V]:
    """Return the values under their names with a prefix."""
    return {f"{prefix}{name}": value for name, value in values.items()}


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, under their names without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def frozen(network: M, tensors: Mapping[str, Tensor]) -> M:
    """Load these parameters into the network and return it with gradients disabled."""
    network.load_state_dict(dict(tensors))
    return network.requires_grad_(False)
