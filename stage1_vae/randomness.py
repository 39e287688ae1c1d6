"""Randomness that is handed in: generators from counters, and layers that take none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
