"""AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101), by torch's fused function.

The results are those of `torch.optim.AdamW(…, fused=True)`, byte for byte. The constructor of that class imports the
compiler of torch, which takes as long as the import of torch itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class AdamW:
    """An optimiser of parameters. A step updates those that have a gradient.

    With the gradient g, learning rate η, weight decay λ, and bias-corrected running averages m of g and v of g²:

        θ ← (1 − η λ) θ − η m / (√v + ε)

    Attributes:
        parameters: the parameters θ.
        learning_rate: η, which a schedule may set before each step.
        betas: decays of the averages m and v, which a schedule may set as well.
        weight_decay: λ.
        state: for each index of a parameter, the number of its steps `step` (), and its averages `exp_avg` and
            `exp_avg_sq`, in the shape and memory layout of the parameter.
    """

    EPSILON = 1e-8

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.betas, self.weight_decay = learning_rate, betas, weight_decay
        self.state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Delete the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, skip: Tensor | None = None) -> None:
        """Update the parameters by their gradients, but not if `skip` () float32, on their device, is 1."""
        moving = {index: p for index, p in enumerate(self.parameters) if p.grad is not None}
        for index, parameter in moving.items():
            if index not in self.state:
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[index] = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **averages}
        states = [self.state[index] for index in moving]
        adamw(
            list(moving.values()),
            [parameter.grad for parameter in moving.values() if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=skip,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=self.EPSILON,
            maximize=False,
        )
