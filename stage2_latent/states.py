"""Tools for the state of a density that contains the state of networks or of other densities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under their names with a prefix."""
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, under their names without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def frozen(network: M, tensors: Mapping[str, Tensor]) -> M:
    """Load these parameters into the network and return it with gradients disabled."""
    network.load_state_dict(dict(tensors))
    return network.requires_grad_(False)
