"""Gradient descent: AdamW, and a loop that keeps the state with the best score on held-out codes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

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


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).

    This is torch's function `adamw`, because the first `torch.optim.Optimizer` of a process imports torch's compiler,
    which takes a second.

    Args:
        groups: parameters and their rates; parameters that need no gradient are left alone.
        steps: learning rates decay to 0 along half a cosine over this number of steps; None keeps them.
        betas: decays of the running means of gradients and of their squares.
    """

    def __init__(self, *groups: Group, steps: int | None = None, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        learned = [[each for each in group.parameters if each.requires_grad] for group in groups]
        self.groups = [(group, parameters) for group, parameters in zip(groups, learned, strict=True) if parameters]
        self.moments = [
            ([torch.zeros_like(each) for each in parameters], [torch.zeros_like(each) for each in parameters])
            for _, parameters in self.groups
        ]
        self.counts = [[torch.zeros(()) for _ in parameters] for _, parameters in self.groups]
        self.steps, self.betas, self.taken = steps, betas, 0

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of a loss."""
        share = 1.0 if self.steps is None else (1 + math.cos(math.pi * self.taken / self.steps)) / 2
        self.taken += 1
        everything = [each for _, parameters in self.groups for each in parameters]
        pairs = zip(everything, torch.autograd.grad(loss, everything, materialize_grads=True), strict=True)
        gradients = [torch.empty_like(parameter).copy_(gradient) for parameter, gradient in pairs]  # same strides
        with torch.no_grad():
            for (group, parameters), moments, counts in zip(self.groups, self.moments, self.counts, strict=True):
                own, gradients = gradients[: len(parameters)], gradients[len(parameters) :]
                if group.limit < math.inf:
                    factor = (group.limit / (nn.utils.get_total_norm(own) + 1e-6)).clamp_max(1)
                    own = [each * factor for each in own]
                adamw(
                    parameters,
                    own,
                    *moments,
                    [],
                    counts,
                    fused=True,
                    foreach=False,
                    amsgrad=False,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    lr=share * group.rate,
                    weight_decay=group.decay,
                    eps=1e-8,
                    maximize=False,
                )
