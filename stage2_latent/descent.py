"""Gradient descent that ends with the best of several looks at held-out codes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def descend(
    take: Callable[[int], None],
    look: Callable[[int], float],
    keep: Callable[[], T],
    *,
    steps: int,
    every: int,
    patience: float = math.inf,
) -> T:
    """Steps 0 … `steps`, of which every `every`-th and the last begin with a look; a copy of the best state.

    Args:
        take: takes a step.
        look: the held-out score before a step.
        keep: the state that the score is of.
        steps: number of the last step.
        every: steps from one look to the next.
        patience: looks without improvement before the descent ends.

    Raises:
        ValueError: no score was a finite number.
    """
    best, since = -math.inf, 0
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            score, since = look(step), since + 1
            if score > best:
                best, since, kept = score, 0, copy.deepcopy(keep())
            if since >= patience:
                break
        take(step)
    if best == -math.inf:
        raise ValueError(
            "held-out log-likelihood is never a finite number, expected one: lower learning_rate"
        )
    return kept


class Cosine:
    """An optimiser whose learning rates fall to 0 along half a cosine, and whose gradients are clipped.

    Args:
        optimiser: of any parameters.
        steps: number of steps.
        parameters: those whose gradient's norm is clipped.
        limit: the norm at most.
    """

    def __init__(
        self, optimiser: torch.optim.Optimizer, steps: int, parameters: Iterable[nn.Parameter], limit: float
    ) -> None:
        self.optimiser, self.parameters, self.limit = optimiser, list(parameters), limit
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of a loss."""
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.limit)
        self.optimiser.step()
        self.schedule.step()
