"""Random number generators with explicit seeds, and noise drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

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


class SharedGenerator(torch.Generator):
    """A generator for a process that computes some rows of a batch.

    `normal` and `uniform` draw for all `total` rows of the batch and return the draws of `rows` alone. Each row thus
    has the noise that it has in a process that computes the whole batch.
    """

    total = 0
    rows = slice(0)

    @classmethod
    def of(cls, generator: torch.Generator) -> Self:
        """Return a copy of a generator in its present state."""
        shared = cls(generator.device)
        shared.set_state(generator.get_state())
        return shared


def seed_from(generator: torch.Generator) -> int:
    """Draw a seed below 2³¹ from a generator, for functions that take a number as their seed."""
    return int(torch.randint(2**31, (1,), generator=generator, device=generator.device))


def generator_from(rng: np.random.Generator) -> torch.Generator:
    """Return a torch generator whose seed is drawn from a NumPy generator."""
    return torch.Generator().manual_seed(int(rng.integers(2**63)))


def normal(size: Sequence[int], like: Tensor, generator: torch.Generator | None, dim: int = 0) -> Tensor:
    """Return standard normal draws with the type and device of `like`; `dim` is the dimension of the rows."""
    return _draw(torch.randn, size, like.dtype, like.device, generator, dim)


def uniform(size: Sequence[int], like: Tensor, generator: torch.Generator | None, dim: int = 0) -> Tensor:
    """Return uniform draws in [0, 1), as `normal` does; of the default type if `like` has no floating-point type."""
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return _draw(torch.rand, size, dtype, like.device, generator, dim)


def _draw(
    draw: Callable[..., Tensor],
    size: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None,
    dim: int,
) -> Tensor:
    if not isinstance(generator, SharedGenerator):
        return draw(tuple(size), generator=generator, dtype=dtype, device=device)
    first, last, _ = generator.rows.indices(generator.total)
    if size[dim] != last - first:
        raise ValueError(f"draws of size {tuple(size)}: found {size[dim]} rows, expected {last - first} in dim {dim}")
    whole = (*size[:dim], generator.total, *size[dim + 1 :])
    return draw(whole, generator=generator, dtype=dtype, device=device).narrow(dim, first, last - first)
