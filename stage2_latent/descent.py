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
        raise ValueError("held-out log-likelihood is never a finite number, expected one: lower learning_rate")
    return kept


def cosine(
    optimiser: torch.optim.Optimizer, steps: int, parameters: Iterable[nn.Parameter], limit: float
) -> Callable[[Tensor], None]:
    """loss → one step down its gradient: rates fall to 0 along half a cosine over `steps` of them.

    The norm of the gradient of some parameters is clipped at a limit.
    """
    schedule, clipped = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps), list(parameters)

    def down(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(clipped, limit)
        optimiser.step()
        schedule.step()

    return down
