"""Ordinary differential equations, integrated in fixed steps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def integrate(
    field: Callable[[float, Tensor], Tensor], state: Tensor, start: float, end: float, steps: int
) -> Tensor:
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
