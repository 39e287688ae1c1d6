"""The velocity network of flow matching, its exact divergence, and a Runge–Kutta integrator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

FREQUENCIES = 6
"""Number of frequencies of the sines and cosines of t that the network gets as inputs."""


class Velocity(nn.Module):
    """v(x, t, label, known): two hidden layers, modulated by a small network of all inputs except x.

    Let M be the diagonal 0-1 matrix of the moving coordinates, φ the SiLU, and g and b gains and shifts from the small
    network (FiLM, Perez et al. 2018, arXiv 1709.07871). Then

        a₁ = g₁ ⊙ (W₁ M x + S (I − M) x) + b₁,    a₂ = g₂ ⊙ W₂ φ(a₁) + b₂,    v = M (W₃ φ(a₂) + c).

    The trace of the Jacobian in the moving coordinates is a bilinear form of the slopes d = g ⊙ φ′(a). It needs neither
    one derivative per dimension nor random probes:

        ∇ · v = tr(M W₃ D₂ W₂ D₁ W₁ M) = d₂ᵀ (W₂ ⊙ (W₁ M W₃)ᵀ) d₁.

    The untrained network has v = 0.

    Args:
        features: D.
        blocks: number of blocks of the code vector, each of which may be known.
        classes: K.
        hidden: width of the hidden layers.
    """

    def __init__(self, features: int, blocks: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.classes = classes
        self.moving = nn.Linear(features, hidden, bias=False)  # W₁
        self.known = nn.Linear(features, hidden, bias=False)  # S
        self.hidden = nn.Linear(hidden, hidden, bias=False)  # W₂
        self.out = nn.Linear(hidden, features)  # W₃ and c
        width = max(8, hidden // 2)
        last = nn.Linear(width, 4 * hidden)
        self.modulate = nn.Sequential(nn.Linear(2 * FREQUENCIES + classes + blocks, width), nn.SiLU(), last)
        for layer in (self.out, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def modulation(self, t: Tensor, classes: Tensor, known: Tensor) -> Tensor:
        """Return gains and shifts (n, 4·hidden) for times (n,), classes (n,) and masks of known blocks (n, blocks)."""
        angle = math.pi * t.unsqueeze(-1) * torch.arange(1, FREQUENCIES + 1, device=t.device)
        label = nn.functional.one_hot(classes, self.classes)
        gains_and_shifts: Tensor = self.modulate(
            torch.cat([angle.cos(), angle.sin(), label.to(t), known.to(t)], dim=-1)
        )
        return gains_and_shifts

    def forward(self, x: Tensor, modulation: Tensor, moving: Tensor) -> Tensor:
        """Return v at points x (n, D); `moving` (D,) or (n, D) bool marks the coordinates that are not known."""
        return self._layers(x, modulation, moving.to(x))[0]

    def with_divergence(self, x: Tensor, modulation: Tensor, moving: Tensor) -> Tensor:
        """Return v and its divergence over the moving coordinates (D,), concatenated to (n, D + 1)."""
        mask = moving.to(x)
        v, a1, a2 = self._layers(x, modulation, mask)
        first, _, second, _ = modulation.chunk(4, dim=-1)
        d1, d2 = (1 + first) * _slope(a1), (1 + second) * _slope(a2)
        out = mask.unsqueeze(-1) * self.out.weight  # (D, hidden), M W₃
        middle = self.hidden.weight * (self.moving.weight @ out).T
        divergence = ((d2 @ middle) * d1).sum(-1)
        return torch.cat([v, divergence.unsqueeze(-1)], dim=-1)

    def _layers(self, x: Tensor, modulation: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return v and the arguments a₁ and a₂ of the nonlinearities."""
        first, first_shift, second, second_shift = modulation.chunk(4, dim=-1)  # gains are 1 + first and 1 + second
        free = mask * x
        a1 = (1 + first) * (self.moving(free) + self.known(x - free)) + first_shift
        a2 = (1 + second) * self.hidden(nn.functional.silu(a1)) + second_shift
        v = mask * self.out(nn.functional.silu(a2))
        return v, a1, a2


def _slope(a: Tensor) -> Tensor:
    """Return φ′(a) of the SiLU φ(a) = a σ(a)."""
    share = a.sigmoid()
    return share * (1 + a * (1 - share))


def integrate(field: Callable[[float, Tensor], Tensor], state: Tensor, start: float, end: float, steps: int) -> Tensor:
    """Solve dy/dt = field(t, y) with y(start) = state for y(end) by the classical Runge–Kutta method of order 4.

    Integrates backwards if end < start. Gradients flow to the state and to the parameters of the field.
    """
    h = (end - start) / steps
    for step in range(steps):
        t = start + step * h
        first = field(t, state)
        second = field(t + h / 2, state + h / 2 * first)
        third = field(t + h / 2, state + h / 2 * second)
        fourth = field(t + h, state + h * third)
        state = state + h / 6 * (first + 2 * second + 2 * third + fourth)
    return state
