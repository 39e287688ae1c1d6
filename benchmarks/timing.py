"""Shared functions of the benchmarks of training: example images, training steps, and timing."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from postprior.stage1_vae.modalities import Batch, Modality

ROWS, WIDTH = 128, 32


def images(size: int) -> tuple[Modality, ...]:
    """Return five image modalities of shape 3 × size × size."""
    return tuple(Modality(f"m{index}", "image", (3, size, size), "laplace", (0, 1)) for index in range(5))


def batch(modalities: tuple[Modality, ...]) -> Batch:
    """Return `ROWS` complete rows of noise."""
    generator = torch.Generator().manual_seed(0)
    data = {m.name: torch.rand(ROWS, *m.shape, generator=generator) for m in modalities}
    return Batch(data, torch.ones(ROWS, len(modalities), dtype=torch.bool))


def optimised(parameters: list[nn.Parameter], backward: Callable[[], None]) -> Callable[[], None]:
    """Return a training step that updates the parameters with the gradients that `backward` computes."""
    optimizer = torch.optim.AdamW(parameters, 1e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward()
        optimizer.step()

    return run


def seconds(action: Callable[[], None]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
