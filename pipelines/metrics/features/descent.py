"""The optimiser of all evaluators."""

import math

import torch
from torch import Tensor, nn

from postprior.stage1_vae.adamw import AdamW


class Descent:
    """AdamW with decoupled weight decay (https://arxiv.org/abs/1711.05101) and one cycle of the learning rate.

    Along half-cosines, the learning rate rises from `rate` / 25 to `rate` in the first 30 % of the steps and falls
    almost to 0 in the others; β₁ falls from 0.95 to 0.85 and rises again (https://arxiv.org/abs/1708.07120, the
    defaults of torch's `OneCycleLR`). The module is put into training mode.
    """

    def __init__(self, module: nn.Module, rate: float, steps: int, decay: float = 0.0) -> None:
        self.optimiser = AdamW(module.train().parameters(), rate, weight_decay=decay)
        self.rate = rate
        self.last, self.taken = max(2, steps) - 1, 0
        self.peak = 0.3 * (self.last + 1) - 1

    def cycle(self) -> tuple[float, float]:
        """Return learning rate and β₁ of the next step."""
        rising = self.taken <= self.peak
        start, end = (0, self.peak) if rising else (self.peak, self.last)
        lowest = self.rate / 25 * (1 if rising else 1e-4)
        done = (1 - math.cos(math.pi * (self.taken - start) / (end - start))) / 2
        height = done if rising else 1 - done
        return lowest + (self.rate - lowest) * height, 0.95 - 0.1 * height

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of a loss."""
        self.optimiser.learning_rate, beta = self.cycle()
        self.optimiser.betas = (beta, self.optimiser.betas[1])
        self.taken += 1
        torch.autograd.backward(loss, inputs=self.optimiser.parameters)
        self.optimiser.step()
        self.optimiser.zero_grad()
