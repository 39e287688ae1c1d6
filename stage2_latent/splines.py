"""Batches of monotone rational-quadratic splines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

LEAST = 1e-3
"""Smallest share of a bin in the interval, and smallest slope at a knot."""


@dataclass(frozen=True, eq=False)
class Splines:
    """(n, d) monotone maps of [−b, b] onto itself, rational-quadratic between knots and the identity outside.

    In the bin [xₖ, xₖ₊₁] with t = (x − xₖ) / (xₖ₊₁ − xₖ), s = Δy / Δx and slopes δ at its ends,
    y = yₖ + Δy (s t² + δₖ t(1 − t)) / (s + (δₖ₊₁ + δₖ − 2s) t(1 − t)) (Durkan et al. 2019, arXiv 1906.04032).

    Bins are in the middle dimension, so that sums over them are elementwise in memory. All points are evaluated, also
    those outside the bounds; this is faster than gathering the points within the bounds.

    Args:
        x: positions of the knots, (n, bins + 1, d), from −b to b.
        y: values of the maps at the knots, (n, bins + 1, d).
        slopes: δ, dy/dx at the knots, (n, bins + 1, d); 1 at both ends.
    """

    x: Tensor
    y: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, raw: Tensor, bins: int, bound: float) -> Self:
        """Return splines from unconstrained numbers (n, 3·bins − 1, d); zeros give the identity."""
        widths, heights, slopes = raw.split([bins, bins, bins - 1], dim=1)
        slopes = LEAST + nn.functional.softplus(slopes + math.log(math.expm1(1 - LEAST)))
        return cls(_knots(widths, bound), _knots(heights, bound), _between(1.0, slopes, 1.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y of x (n, d), and log dy/dx."""
        within = x.clamp(self.x[:, 0], self.x[:, -1])  # infinite values outside would have NaN gradients
        left, width, low, height, first, last = self._bin(within, self.x)
        t = (within - left) / width
        slope, between = height / width, t * (1 - t)
        risen = (slope * t.square() + first * between) / (slope + (first + last - 2 * slope) * between)
        return self._inside(x, low + height * risen, _log_slope(t, slope, first, last))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x of y (n, d), and log dx/dy.

        x is the root of the quadratic of the bin, in the form without cancellation.
        """
        within = y.clamp(self.y[:, 0], self.y[:, -1])
        left, width, low, height, first, last = self._bin(within, self.y)
        slope, risen = height / width, within - low
        bend = risen * (first + last - 2 * slope)
        a, b, c = bend + height * (slope - first), height * first - bend, -slope * risen
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        return self._inside(y, left + t * width, -_log_slope(t, slope, first, last))

    def _bin(self, value: Tensor, edges: Tensor) -> list[Tensor]:
        """Return start and size in x, start and size in y, and both end slopes of the bin of each value, (n, d)."""
        index = (value.unsqueeze(1) >= edges[:, 1:-1]).sum(1, keepdim=True)  # (n, 1, d)
        x, y, first = (knots.gather(1, index).squeeze(1) for knots in (self.x, self.y, self.slopes))
        right, top, last = (knots.gather(1, index + 1).squeeze(1) for knots in (self.x, self.y, self.slopes))
        return [x, right - x, y, top - y, first, last]

    def _inside(self, value: Tensor, mapped: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        inside = (value > self.x[:, 0]) & (value < self.x[:, -1])
        return torch.where(inside, mapped, value), torch.where(inside, log_slope, 0.0)


def _knots(raw: Tensor, bound: float) -> Tensor:
    shares = LEAST + (1 - LEAST * raw.shape[1]) * raw.softmax(1)
    return _between(-bound, 2 * bound * shares[:, :-1].cumsum(1) - bound, bound)


def _between(first: float, inner: Tensor, last: float) -> Tensor:
    """Pad the numbers with one value before the first and one after the last, along the middle dimension."""
    inner = nn.functional.pad(inner, (0, 0, 1, 0), value=first)
    return nn.functional.pad(inner, (0, 0, 0, 1), value=last)


def _log_slope(t: Tensor, slope: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return log dy/dx at the position t in [0, 1] within the bin."""
    between = t * (1 - t)
    rise = last * t.square() + 2 * slope * between + first * (1 - t).square()
    return rise.log() + 2 * (slope / (slope + (first + last - 2 * slope) * between)).log()
