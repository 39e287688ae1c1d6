"""Randomness that is handed in: noise, generators from counters, and layers that take none."""

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
    """Torch's global generator set to `seed` inside the block and given back as it was.

    Layers draw their initial parameters from the global generator and take no other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def generator_for(device: torch.device | str, *counters: int) -> torch.Generator:
    """A generator whose seed is a hash of the counters: neighbouring counters share nothing."""
    digest = hashlib.sha256(repr(counters).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def seed_from(generator: torch.Generator) -> int:
    """A seed below 2³¹ drawn from a generator, for what takes numbers."""
    return int(torch.randint(2**31, (1,), generator=generator, device=generator.device))


def generator_from(rng: np.random.Generator) -> torch.Generator:
    """Torch's generator, seeded by a draw of NumPy's."""
    return torch.Generator().manual_seed(int(rng.integers(2**63)))


def normal(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws with the type and device of `like`."""
    return torch.randn(tuple(size), generator=generator, dtype=like.dtype, device=like.device)


def uniform(size: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform draws in [0, 1) with the type and device of `like`."""
    return torch.rand(tuple(size), generator=generator, dtype=like.dtype, device=like.device)
