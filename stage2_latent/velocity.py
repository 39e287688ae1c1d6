"""The velocity of a flow in time, a network whose divergence costs no more than itself, and where it carries points."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

FREQUENCIES = 6
"""Of the sines and cosines that the network sees of t."""


class Velocity(nn.Module):
    """v(x, t, label, known): two hidden layers, modulated by a small network of everything but x.

    With M the diagonal 0-1 matrix of the moving coordinates, φ the SiLU, and gains g and shifts b from the small
    network (FiLM, Perez et al. 2018, arXiv 1709.07871),

        a₁ = g₁ ⊙ (W₁ M x + S (I − M) x) + b₁,    a₂ = g₂ ⊙ W₂ φ(a₁) + b₂,    v = M (W₃ φ(a₂) + c).

    The trace of its Jacobian in the moving coordinates is a bilinear form of the slopes d = g ⊙ φ′(a), so that it needs
    neither a derivative for each dimension nor random probes:

        ∇ · v = tr(M W₃ D₂ W₂ D₁ W₁ M) = d₂ᵀ (W₂ ⊙ (W₁ M W₃)ᵀ) d₁.

    At first v = 0.

    Args:
        features: D.
        blocks: number of blocks that may be known.
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
        """Gains and shifts (n, 4·hidden) at times (n,) for classes (n,), blocks (n, blocks) being known."""
        angle = math.pi * t.unsqueeze(-1) * torch.arange(1, FREQUENCIES + 1, device=t.device)
        label = nn.functional.one_hot(classes, self.classes)
        seen: Tensor = self.modulate(torch.cat([angle.cos(), angle.sin(), label.to(t), known.to(t)], dim=-1))
        return seen

    def forward(self, x: Tensor, modulation: Tensor, moving: Tensor) -> Tensor:
        """v of points x (n, D); `moving` (D,) or (n, D) bool marks what is not known."""
        return self._layers(x, modulation, moving.to(x))[0]

    def with_divergence(self, x: Tensor, modulation: Tensor, moving: Tensor) -> Tensor:
        """v and its divergence over the moving coordinates (D,), side by side: (n, D + 1)."""
        kept = moving.to(x)
        v, a1, a2 = self._layers(x, modulation, kept)
        first, _, second, _ = modulation.chunk(4, dim=-1)
        d1, d2 = (1 + first) * _slope(a1), (1 + second) * _slope(a2)
        out = kept.unsqueeze(-1) * self.out.weight  # (D, hidden), M W₃
        middle = self.hidden.weight * (self.moving.weight @ out).T
        divergence = ((d2 @ middle) * d1).sum(-1)
        return torch.cat([v, divergence.unsqueeze(-1)], dim=-1)

    def _layers(self, x: Tensor, modulation: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """v, and the arguments a₁ and a₂ of the nonlinearities."""
        first, shift, second, raised = modulation.chunk(4, dim=-1)  # gains are 1 at first
        free = kept * x
        a1 = (1 + first) * (self.moving(free) + self.known(x - free)) + shift
        a2 = (1 + second) * self.hidden(nn.functional.silu(a1)) + raised
        v = kept * self.out(nn.functional.silu(a2))
        return v, a1, a2


def _slope(a: Tensor) -> Tensor:
    """φ′ of the SiLU φ(a) = a σ(a)."""
    share = a.sigmoid()
    return share * (1 + a * (1 - share))


def integrate(field: Callable[[float, Tensor], Tensor], state: Tensor, start: float, end: float, steps: int) -> Tensor:
    """y(end) of dy/dt = field(t, y) with y(start) = state, by the classical Runge–Kutta method of order 4.

    Backwards where end < start; differentiable in whatever the field is made of.
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
