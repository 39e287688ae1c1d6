"""Random number generators with explicit seeds, and noise drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generator of torch inside the block and restore its state afterwards.

    Layers draw their initial parameters from the global generator; they accept no other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def generator_for(device: torch.device | str, *counters: int) -> torch.Generator:
    """Return a generator whose seed is a hash of the counters, so that similar counters give unrelated streams."""
    digest = hashlib.sha256(repr(counters).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def seed_from(generator: torch.Generator) -> int:
    """Draw a seed below 2³¹ from a generator, for functions that take a number as their seed."""
    return int(torch.randint(2**31, (1,), generator=generator, device=generator.device))


def generator_from(rng: np.random.Generator) -> torch.Generator:
    """Return a torch generator whose seed is drawn from a NumPy generator."""
    return torch.Generator().manual_seed(int(rng.integers(2**63)))


def normal(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return standard normal draws with the type and device of `like`."""
    return torch.randn(tuple(size), generator=generator, dtype=like.dtype, device=like.device)


def uniform(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return uniform draws in [0, 1) with the type and device of `like`."""
    return torch.rand(tuple(size), generator=generator, dtype=like.dtype, device=like.device)
