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

    All points are evaluated, also those outside the bounds; this is faster than gathering the points within the bounds.

    Args:
        bins: of each bin its start in x and y, its size in x and y, and the slopes δ = dy/dx at its two ends,
            (n, 6, bins, d); the slope is 1 at −b and b.
        bound: b.
    """

    bins: Tensor
    bound: float

    @classmethod
    def of(cls, raw: Tensor, bins: int, bound: float) -> Self:
        """Return splines from unconstrained numbers (n, 3·bins − 1, d); zeros give the identity."""
        shares = raw[:, : 2 * bins].unflatten(1, (2, bins)).softmax(2)  # of the bins in x and in y
        sizes = 2 * bound * (LEAST + (1 - LEAST * bins) * shares)
        starts = sizes.cumsum(2) - sizes - bound
        inner = nn.functional.pad(raw[:, 2 * bins :], (0, 0, 1, 1))  # 0 gives the slope 1
        slopes = LEAST + nn.functional.softplus(inner + math.log(math.expm1(1 - LEAST)))
        ends = slopes.unsqueeze(1)
        return cls(torch.cat([starts, sizes, ends[:, :, :-1], ends[:, :, 1:]], dim=1), bound)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y of x (n, d), and log dy/dx."""
        inside, (left, low, width, height, first, last) = self._bin(x, 0)
        slope, t = height / width, (x.where(inside, 0.0) - left) / width
        risen, log_slope = _rational(t, slope, first, last)
        return (low + height * risen).where(inside, x), log_slope.where(inside, 0.0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x of y (n, d), and log dx/dy.

        x is the root of the quadratic of the bin, in the form without cancellation.
        """
        inside, (left, low, width, height, first, last) = self._bin(y, 1)
        slope, risen = height / width, y.where(inside, 0.0) - low
        bend = risen * (first + last - 2 * slope)
        a, b, c = bend + height * (slope - first), height * first - bend, -slope * risen
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        _, log_slope = _rational(t, slope, first, last)
        return (left + t * width).where(inside, y), -log_slope.where(inside, 0.0)

    def _bin(self, value: Tensor, axis: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return whether each value (n, d) is within the bounds, and the parameters of its bin.

        Values are those of x (axis 0) or of y (axis 1); values outside get the bin of 0.
        """
        inside = value.abs() < self.bound
        starts = self.bins[:, axis, 1:].detach()
        index = (value.where(inside, 0.0).unsqueeze(1) >= starts).sum(1, keepdim=True)  # (n, 1, d)
        chosen = self.bins.gather(2, index.unsqueeze(1).expand(-1, 6, -1, -1))
        return inside, chosen.squeeze(2).unbind(1)


def _rational(t: Tensor, slope: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the bin's rise, and log dy/dx, at the position t in [0, 1] within the bin."""
    square, between = t.square(), t * (1 - t)
    below = slope + (first + last - 2 * slope) * between
    rise = last * square + 2 * slope * between + first * (1 - t).square()
    return (slope * square + first * between) / below, rise.log() + 2 * (slope / below).log()
