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


@dataclass(frozen=True, eq=False)
class Matrix:
    """A block-diagonal matrix A plus a product U V, of which only the blocks and the factors are stored.

    Args:
        parts: blocks on the diagonal of A, (rows, columns) each; a dense matrix is one block.
        left, right: U (rows of A, R) and V (R, columns of A); None if there is no product.
    """

    parts: Sequence[Tensor]
    left: Tensor | None = None
    right: Tensor | None = None

    def split(self, x: Tensor, dim: int = -1) -> Sequence[Tensor]:
        """Split what has one element per row of the matrix into the elements of each block."""
        return x.split([len(part) for part in self.parts], dim)

    def apply(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return (A + U V) x + shift for points x (…, columns), shape (…, rows)."""
        shifts = [None] * len(self.parts) if shift is None else self.split(shift)
        columns = x.split([part.shape[1] for part in self.parts], -1)
        y = [nn.functional.linear(*each) for each in zip(columns, self.parts, shifts, strict=True)]
        product = y[0] if len(y) == 1 else torch.cat(y, -1)
        if self.left is None or self.right is None:
            return product
        return product + nn.functional.linear(nn.functional.linear(x, self.right), self.left)

    def scaled(self, gain: Tensor) -> Matrix:
        """Return the matrix with its rows multiplied by gains (rows,)."""
        parts = [g.unsqueeze(-1) * part for g, part in zip(self.split(gain), self.parts, strict=True)]
        return Matrix(parts, None if self.left is None else gain.unsqueeze(-1) * self.left, self.right)


@dataclass(frozen=True)
class Weights:
    """W₁ (hidden, D), S (hidden, D), W₂ (hidden, hidden), W₃ (D, hidden) and c (D,) of a `Velocity`.

    W₁, S and W₃ are block-diagonal, and so is W₂ apart from a product.
    """

    moving: Matrix
    known: Matrix
    hidden: Matrix
    out: Matrix
    shift: Tensor

    def read(self, mask: Tensor) -> Matrix:
        """Return W₁ M + S (I − M) for the diagonal M of a mask (D,) of 0 and 1."""
        masks = self.out.split(mask)
        parts = zip(masks, self.moving.parts, self.known.parts, strict=True)
        return Matrix([m * free + (1 - m) * still for m, free, still in parts])

    def middle(self, mask: Tensor) -> Matrix:
        """Return W₂ ⊙ (W₁ M W₃)ᵀ: block-diagonal, because W₁ and W₃ are."""
        masks, left, right = self.out.split(mask), self.hidden.left, self.hidden.right
        lefts = None if left is None else self.hidden.split(left, 0)
        rights = None if right is None else self.hidden.split(right, 1)
        parts = []
        for b, (m, w1, w2, w3) in enumerate(
            zip(masks, self.moving.parts, self.hidden.parts, self.out.parts, strict=True)
        ):
            own = w2 if lefts is None or rights is None else w2 + lefts[b] @ rights[b]
            parts.append(own * (w1 @ (m.unsqueeze(-1) * w3)).T)
        return Matrix(parts)


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
        seen = weights.moving.apply(free)
        if self.blocks > 1:  # the only block is never known
            seen = seen + weights.known.apply(x - free)
        a1 = (1 + first) * seen + first_shift
        a2 = (1 + second) * weights.hidden.apply(nn.functional.silu(a1)) + second_shift
        return mask * weights.out.apply(nn.functional.silu(a2), weights.shift)

    def fields(self, times: Tensor, label: int, known: Tensor, moving: Tensor) -> list[Field]:
        """Return v and its divergence at each of the times (T,), for one class and one mask of known blocks (blocks,).

        The gains, the label and the mask become part of the weights, so that a field costs three matrix products.
        """
        classes = torch.full((len(times),), label, device=times.device)
        gains_and_shifts = self.modulation(times, classes, known.expand(len(times), -1))
        mask, weights = moving.to(times), self.weights()
        read, middle = weights.read(mask), weights.middle(mask)
        out, shift = weights.out.scaled(mask), mask * weights.shift  # M W₃ and M c

        def field(first: Tensor, first_shift: Tensor, second: Tensor, second_shift: Tensor) -> Field:
            """Return the field with gains 1 + first and 1 + second, and these shifts, (hidden,) each."""
            gains = 1 + first, 1 + second
            columns = zip(middle.parts, middle.split(gains[0]), strict=True)
            slopes = Matrix([part * gain for part, gain in columns]).scaled(gains[1])
            return Field(
                read.scaled(gains[0]), first_shift, weights.hidden.scaled(gains[1]), second_shift, slopes, out, shift
            )

        return [field(*each.chunk(4)) for each in gains_and_shifts]


class Plain(Velocity):
    """Every hidden unit reads every coordinate."""

    def _add_layers(self, sizes: Sequence[int], hidden: int) -> None:
        D = sum(sizes)
        self.moving, self.known = (nn.Linear(D, hidden, bias=False) for _ in range(2))
        self.hidden, self.out = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, D)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def weights(self) -> Weights:
        moving, known, hidden, out = (
            Matrix([layer.weight]) for layer in (self.moving, self.known, self.hidden, self.out)
        )
        return Weights(moving, known, hidden, out, self.out.bias)


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
        hidden = Matrix([*self.hidden], self.receive, self.send)
        return Weights(Matrix([*self.moving]), Matrix([*self.known]), hidden, Matrix([*self.out]), self.shift)


def _uniform(rows: int, columns: int) -> nn.Parameter:
    """Return a random matrix, as nn.Linear initialises its weight."""
    return nn.Parameter(torch.empty(rows, columns).uniform_(-(columns**-0.5), columns**-0.5))


@dataclass(frozen=True, eq=False)
class Field:
    """A velocity field at one time: v = W₃ φ(W₂ φ(W₁ x + b₁) + b₂) + c, with divergence φ′(a₂)ᵀ C φ′(a₁).

    Args:
        first, first_shift: W₁ (hidden, D) and b₁ (hidden,).
        second, second_shift: W₂ (hidden, hidden) and b₂ (hidden,).
        middle: C, (hidden, hidden).
        out, out_shift: W₃ (D, hidden) and c (D,).
    """

    first: Matrix
    first_shift: Tensor
    second: Matrix
    second_shift: Tensor
    middle: Matrix
    out: Matrix
    out_shift: Tensor

    def velocity(self, x: Tensor) -> Tensor:
        """Return v at points (n, D)."""
        a1 = self.first.apply(x, self.first_shift)
        a2 = self.second.apply(nn.functional.silu(a1), self.second_shift)
        return self.out.apply(nn.functional.silu(a2), self.out_shift)

    def with_divergence(self, state: Tensor) -> Tensor:
        """Return v and its divergence, (n, D + 1), at the points in the first D columns of a state (n, D + 1)."""
        a1 = self.first.apply(state[:, :-1], self.first_shift)
        first, first_slope = _silu(a1)
        second, second_slope = _silu(self.second.apply(first, self.second_shift))
        v = self.out.apply(second, self.out_shift)
        divergence = torch.linalg.vecdot(second_slope, self.middle.apply(first_slope))
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
