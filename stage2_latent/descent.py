"""Gradient descent: groups of parameters, and a loop that keeps the state with the best score on held-out codes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from postprior.stage1_vae.adamw import AdamW

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


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate and one weight decay, whose gradient has at most the norm `limit`."""

    parameters: Iterable[Tensor]
    rate: float
    decay: float = 0.0
    limit: float = math.inf


class Descent:
    """AdamW on groups of parameters, with learning rates that may decay.

    Args:
        groups: parameters and their rates; parameters that need no gradient are left alone.
        steps: learning rates decay to 0 along half a cosine over this number of steps; None keeps them.
        betas: decays of the running means of gradients and of their squares.
    """

    def __init__(self, *groups: Group, steps: int | None = None, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        learned = [[each for each in group.parameters if each.requires_grad] for group in groups]
        self.optimisers = [
            (group, AdamW(parameters, group.rate, betas, group.decay))
            for group, parameters in zip(groups, learned, strict=True)
            if parameters
        ]
        self.steps, self.taken = steps, 0

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of a loss."""
        share = 1.0 if self.steps is None else (1 + math.cos(math.pi * self.taken / self.steps)) / 2
        self.taken += 1
        torch.autograd.backward(loss, inputs=[each for _, one in self.optimisers for each in one.parameters])
        for group, optimiser in self.optimisers:
            if group.limit < math.inf:
                nn.utils.clip_grad_norm_(optimiser.parameters, group.limit)
            optimiser.learning_rate = share * group.rate
            optimiser.step()
            optimiser.zero_grad()
