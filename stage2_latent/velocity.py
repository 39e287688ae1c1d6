"""The velocity networks of flow matching, its exact divergence, and a Runge–Kutta integrator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FREQUENCIES = 3
"""Number of frequencies of the sines and cosines of t that the network gets as inputs."""


@dataclass(frozen=True)
class Weights:
    """W₁ (hidden, D), S (hidden, D), W₂ (hidden, hidden), W₃ (D, hidden) and c (D,) of a `Velocity`."""

    moving: Tensor
    known: Tensor
    hidden: Tensor
    out: Tensor
    shift: Tensor


class Velocity(nn.Module, ABC):
    """v(x, t, label, known): two hidden layers, modulated by a small network of all inputs except x.

    Let M be the diagonal 0-1 matrix of the moving coordinates, φ the SiLU, and g and b gains and shifts from the small
    network (FiLM, Perez et al. 2018, arXiv 1709.07871). Then

        a₁ = g₁ ⊙ (W₁ M x + S (I − M) x) + b₁,    a₂ = g₂ ⊙ W₂ φ(a₁) + b₂,    v = M (W₃ φ(a₂) + c).

    The trace of the Jacobian in the moving coordinates is a bilinear form of the slopes d = g ⊙ φ′(a). It needs neither
    one derivative per dimension nor random probes:

        ∇ · v = tr(M W₃ D₂ W₂ D₁ W₁ M) = d₂ᵀ (W₂ ⊙ (W₁ M W₃)ᵀ) d₁.

    The untrained network has v = 0. A final class defines the structure of the matrices.

    Args:
        sizes: sizes of the blocks of the code vector, D in total, each of which may be known.
        classes: K.
        hidden: width of the hidden layers.
        width: width of the network that modulates them.
        frequencies: number of frequencies of the sines and cosines of t that this network gets as inputs. More of
            them need more steps of integration.
    """

    def __init__(self, sizes: Sequence[int], classes: int, hidden: int, width: int, frequencies: int = 3) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.blocks, self.classes = len(sizes), classes
        self._add_layers(sizes, hidden)
        last = nn.Linear(width, 4 * hidden)
        self.modulate = nn.Sequential(nn.Linear(2 * frequencies + classes + len(sizes), width), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @abstractmethod
    def _add_layers(self, sizes: Sequence[int], hidden: int) -> None:
        """Create the parameters of `weights`; those of W₃ and c are 0."""

    @abstractmethod
    def weights(self) -> Weights:
        """Return the matrices."""

    def modulation(self, t: Tensor, classes: Tensor, known: Tensor) -> Tensor:
        """Return gains and shifts (n, 4·hidden) for times (n,), classes (n,) and masks of known blocks (n, blocks)."""
        angle = math.pi * t.unsqueeze(-1) * torch.arange(1, self.frequencies + 1, device=t.device)
        label = nn.functional.one_hot(classes, self.classes)
        gains_and_shifts: Tensor = self.modulate(
            torch.cat([angle.cos(), angle.sin(), label.to(t), known.to(t)], dim=-1)
        )
        return gains_and_shifts

    def forward(self, x: Tensor, modulation: Tensor, moving: Tensor) -> Tensor:
        """Return v at points x (…, D); `moving` (…, D) bool marks the coordinates that are not known."""
        first, first_shift, second, second_shift = modulation.chunk(4, dim=-1)  # gains are 1 + first and 1 + second
        mask = moving.to(x)
        free = mask * x
        weights = self.weights()
        seen = free @ weights.moving.T
        if self.blocks > 1:  # the only block is never known
            seen = seen + (x - free) @ weights.known.T
        a1 = (1 + first) * seen + first_shift
        a2 = (1 + second) * (nn.functional.silu(a1) @ weights.hidden.T) + second_shift
        return mask * (nn.functional.silu(a2) @ weights.out.T + weights.shift)

    def fields(self, times: Tensor, label: int, known: Tensor, moving: Tensor) -> list[Field]:
        """Return v and its divergence at each of the times (T,), for one class and one mask of known blocks (blocks,).

        The gains, the label and the mask become part of the weights, so that a field costs three matrix products.
        """
        classes = torch.full((len(times),), label, device=times.device)
        gains_and_shifts = self.modulation(times, classes, known.expand(len(times), -1))
        first, first_shift, second, second_shift = gains_and_shifts.unsqueeze(1).chunk(4, dim=-1)  # (T, 1, hidden)
        mask, weights = moving.to(times), self.weights()
        out = mask.unsqueeze(-1) * weights.out  # M W₃
        read = mask * weights.moving + (1 - mask) * weights.known  # W₁ M + S (I − M)
        middle = weights.hidden * (weights.moving @ out).T  # W₂ ⊙ (W₁ M W₃)ᵀ
        gains = 1 + first, 1 + second
        parts = zip(
            gains[0].mT * read,
            first_shift,
            gains[1].mT * weights.hidden,
            second_shift,
            gains[1].mT * middle * gains[0],
            strict=True,
        )
        return [Field(*each, out, mask * weights.shift) for each in parts]


class Plain(Velocity):
    """Every hidden unit reads every coordinate."""

    def _add_layers(self, sizes: Sequence[int], hidden: int) -> None:
        D = sum(sizes)
        self.moving, self.known = (nn.Linear(D, hidden, bias=False) for _ in range(2))
        self.hidden, self.out = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, D)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def weights(self) -> Weights:
        return Weights(self.moving.weight, self.known.weight, self.hidden.weight, self.out.weight, self.out.bias)


class Blocks(Velocity):
    """Every hidden unit belongs to one block, and the blocks exchange R messages between the hidden layers.

    A unit reads and writes coordinates of its own block only: W₁, S and W₃ are block-diagonal, and W₂ is block-diagonal
    plus a product U V of rank R, where V φ(a₁) are the messages. With many blocks this has far fewer weights than
    `Plain`, and it does not have to learn that blocks are independent, if they are.
    """

    MESSAGES = 16
    """Number of messages, R."""

    def _add_layers(self, sizes: Sequence[int], hidden: int) -> None:
        B = len(sizes)
        units = [hidden * (b + 1) // B - hidden * b // B for b in range(B)]
        pairs = list(zip(units, sizes, strict=True))
        self.moving, self.known = (nn.ParameterList(_uniform(h, d) for h, d in pairs) for _ in range(2))
        self.hidden = nn.ParameterList(_uniform(h, h) for h in units)
        self.out = nn.ParameterList(nn.Parameter(torch.zeros(d, h)) for h, d in pairs)
        self.send, self.receive = _uniform(self.MESSAGES, hidden), nn.Parameter(torch.zeros(hidden, self.MESSAGES))
        self.shift = nn.Parameter(torch.zeros(sum(sizes)))

    def weights(self) -> Weights:
        parts = (self.moving, self.known, self.hidden, self.out)
        moving, known, hidden, out = (torch.block_diag(*each) for each in parts)
        return Weights(moving, known, hidden + self.receive @ self.send, out, self.shift)


def _uniform(rows: int, columns: int) -> nn.Parameter:
    """Return a random matrix, as nn.Linear initialises its weight."""
    return nn.Parameter(torch.empty(rows, columns).uniform_(-(columns**-0.5), columns**-0.5))


@dataclass(frozen=True, eq=False)
class Field:
    """A velocity field at one time: v = W₃ φ(W₂ φ(W₁ x + b₁) + b₂) + c, with divergence φ′(a₂)ᵀ C φ′(a₁).

    Args:
        first, first_shift: W₁ (hidden, D) and b₁ (1, hidden).
        second, second_shift: W₂ (hidden, hidden) and b₂ (1, hidden).
        middle: C, (hidden, hidden).
        out, out_shift: W₃ (D, hidden) and c (D,).
    """

    first: Tensor
    first_shift: Tensor
    second: Tensor
    second_shift: Tensor
    middle: Tensor
    out: Tensor
    out_shift: Tensor

    def velocity(self, x: Tensor) -> Tensor:
        """Return v at points (n, D)."""
        a1 = torch.addmm(self.first_shift, x, self.first.T)
        a2 = torch.addmm(self.second_shift, nn.functional.silu(a1), self.second.T)
        return torch.addmm(self.out_shift, nn.functional.silu(a2), self.out.T)

    def with_divergence(self, state: Tensor) -> Tensor:
        """Return v and its divergence, (n, D + 1), at the points in the first D columns of a state (n, D + 1)."""
        a1 = torch.addmm(self.first_shift, state[:, :-1], self.first.T)
        first, first_slope = _silu(a1)
        second, second_slope = _silu(torch.addmm(self.second_shift, first, self.second.T))
        v = torch.addmm(self.out_shift, second, self.out.T)
        divergence = torch.linalg.vecdot(second_slope @ self.middle, first_slope)
        return torch.cat([v, divergence.unsqueeze(-1)], dim=-1)


def _silu(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the SiLU φ(a) = a σ(a) and its slope φ′(a) = σ(a) (1 − φ(a)) + φ(a)."""
    share = a.sigmoid()
    value = a * share
    return value, torch.addcmul(share + value, share, value, value=-1)


def integrate(fields: Sequence[Callable[[Tensor], Tensor]], state: Tensor, step: float) -> Tensor:
    """Solve dy/dt = f(t, y) from y = `state` by the classical Runge–Kutta method of order 4, and return the end of y.

    Gradients flow to the state.

    Args:
        fields: f at the times t₀, t₀ + step/2, t₀ + step, …, two for each step and one for the end.
        state: y(t₀).
        step: size of a step, negative to integrate backwards.
    """
    for start, half, end in zip(fields[:-1:2], fields[1::2], fields[2::2], strict=True):
        first = start(state)
        second = half(state + step / 2 * first)
        third = half(state + step / 2 * second)
        fourth = end(state + step * third)
        state = state + step / 6 * (first + 2 * second + 2 * third + fourth)
    return state


NETWORKS: dict[str, type[Velocity]] = {"plain": Plain, "blocks": Blocks}
