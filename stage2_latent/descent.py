"""Gradient descent that keeps the state with the best score on held-out codes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def descend(
    take_step: Callable[[int], None],
    evaluate: Callable[[int], float],
    get_state: Callable[[], T],
    *,
    steps: int,
    every: int,
    patience: float = math.inf,
) -> T:
    """Take steps 0 … `steps` and return a copy of the state with the best held-out score.

    The state is evaluated before every `every`-th step and before the last one.

    Args:
        take_step: takes the step with a given number.
        evaluate: returns the held-out score before a step.
        get_state: returns the state that was scored.
        steps: number of the last step.
        every: steps between two evaluations.
        patience: evaluations without improvement before the descent stops.

    Raises:
        ValueError: if no score is a finite number.
    """
    best, since_best = -math.inf, 0
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            score, since_best = evaluate(step), since_best + 1
            if score > best:
                best, since_best, best_state = score, 0, copy.deepcopy(get_state())
            if since_best >= patience:
                break
        take_step(step)
    if best == -math.inf:
        raise ValueError("held-out log-likelihood: never found a finite number, expected one: lower learning_rate")
    return best_state


def evaluations(steps: int, every: int) -> int:
    """Return the number of evaluations in a descent of `steps` steps that does not stop early."""
    return -(-steps // every) + 1


def cosine_decay(
    optimiser: torch.optim.Optimizer, steps: int, parameters: Iterable[nn.Parameter], limit: float
) -> Callable[[Tensor], None]:
    """Return a function that takes one optimiser step on a loss.

    Learning rates decay to 0 along half a cosine over `steps` steps. The norm of the gradient of `parameters` is
    clipped at `limit`.
    """
    schedule, clipped = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps), list(parameters)

    def step_down(loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(clipped, limit)
        optimiser.step()
        schedule.step()

    return step_down
