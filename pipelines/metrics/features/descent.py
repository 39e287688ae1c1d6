"""The optimiser of all evaluators."""

import math

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class Descent:
    """AdamW with decoupled weight decay (https://arxiv.org/abs/1711.05101) and one cycle of the learning rate.

    Along half-cosines, the learning rate rises from `rate` / 25 to `rate` in the first 30 % of the steps and falls
    almost to 0 in the others; β₁ falls from 0.95 to 0.85 and rises again (https://arxiv.org/abs/1708.07120, the
    defaults of torch's `OneCycleLR`). The module is put into training mode.

    This is torch's function `adamw`, because the first `torch.optim.Optimizer` of a process imports torch's compiler,
    which takes a second.
    """

    def __init__(self, module: nn.Module, rate: float, steps: int, decay: float = 0.0) -> None:
        self.parameters: list[Tensor] = list(module.train().parameters())
        self.rate, self.decay = rate, decay
        self.means, self.squares = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.counts = [torch.zeros(()) for _ in self.parameters]
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
        rate, beta = self.cycle()
        self.taken += 1
        gradients = list(torch.autograd.grad(loss, self.parameters))
        with torch.no_grad():
            adamw(
                self.parameters,
                gradients,
                self.means,
                self.squares,
                [],
                self.counts,
                fused=True,
                foreach=False,
                amsgrad=False,
                beta1=beta,
                beta2=0.999,
                lr=rate,
                weight_decay=self.decay,
                eps=1e-8,
                maximize=False,
            )
