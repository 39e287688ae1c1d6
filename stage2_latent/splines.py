"""Batches of monotone rational-quadratic splines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST = 1e-3
"""Smallest share of a bin in the interval, and smallest slope at a knot."""
SHIFT = math.log(math.expm1(1 - LEAST))
"""Added to unconstrained slopes, so that 0 gives the slope 1."""


@dataclass(frozen=True, eq=False)
class Splines:
    """(n, d) monotone maps of [−b, b] onto itself, rational-quadratic between knots and the identity outside.

    In the bin [xₖ, xₖ₊₁] with t = (x − xₖ) / (xₖ₊₁ − xₖ), s = Δy / Δx and slopes δ at its ends,
    y = yₖ + Δy (s t² + δₖ t(1 − t)) / (s + (δₖ₊₁ + δₖ − 2s) t(1 − t)) (Durkan et al. 2019, arXiv 1906.04032).

    Bins are in the first dimension, so that operations over them are elementwise in memory. All points are evaluated,
    also those outside the bounds, and the numbers of a bin are chosen by products with zeros and ones: gathers
    and reductions over the first dimension take longer.

    Args:
        raw: unconstrained numbers (3·bins − 1, n, d): logits of the sizes of the bins in x, the same in y, and slopes
            at the inner knots; zeros give the identity. The slopes at −b and b are 1.
        bins: number of bins.
        bound: b.
    """

    raw: Tensor
    bins: int
    bound: float

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y of x (n, d), and log dy/dx. Both can be differentiated once."""
        y, log_slope = _Forward.apply(x, self.raw, self.bins, self.bound)
        return y, log_slope

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x of y (n, d), and log dx/dy.

        x is the root of the quadratic of the bin, in the form without cancellation.
        """
        inside = y.abs() < self.bound
        within = y.where(inside, 0.0)
        _, (left, low), (width, height), first, last = self._bin(within, axis=1)
        slope, risen = height / width, within - low
        bend = risen * (first + last - 2 * slope)
        a, b, c = bend + height * (slope - first), height * first - bend, -slope * risen
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        _, log_slope = _rational(t, slope, first, last)
        return (left + t * width).where(inside, y), -log_slope.where(inside, 0.0)

    def shares(self) -> Tensor:
        """Return the shares of the bins in x and y beyond their smallest size, (2, bins, n, d)."""
        logits = self.raw[: 2 * self.bins].unflatten(0, (2, self.bins))
        highest = reduce(torch.maximum, logits.detach().unbind(1))  # keeps the exponentials finite
        odds = (logits - highest.unsqueeze(1)).exp()
        return odds / odds.sum(1, keepdim=True)

    def _bin(self, value: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the index of the bin of each value (n, d), its start and its size (2, n, d), and its end slopes.

        Values are those of x (axis 0) or of y (axis 1).
        """
        sizes = 2 * self.bound * (LEAST + (1 - LEAST * self.bins) * self.shares())
        starts = torch.stack([*accumulate(sizes[:, :-1].unbind(1), initial=torch.zeros_like(sizes[:, 0]))], dim=1)
        starts = starts - self.bound
        slope, one = nn.functional.softplus(self.raw[2 * self.bins :] + SHIFT), torch.ones_like(value).unsqueeze(0)
        slopes = torch.cat([one, LEAST + slope, one])  # (bins + 1, n, d)
        index = (value >= starts[axis, 1:]).sum(0)
        own = (self._order(index) == index).to(value)  # (bins, n, d)
        start, size = ((table * own).sum(1) for table in (starts, sizes))
        first, last = ((table * own).sum(0) for table in (slopes[:-1], slopes[1:]))
        return index, start, size, first, last

    def _order(self, like: Tensor) -> Tensor:
        return torch.arange(self.bins, device=like.device)[:, None, None]

    def _gradient(self, index: Tensor, start: Tensor, size: Tensor, slopes: tuple[Tensor, Tensor]) -> Tensor:
        """Return the derivative by `raw`, given those by the start, the size and both end slopes of the bins `index`.

        A bin starts at the sum of the sizes of the bins before it.
        """
        order, shares = self._order(index), self.shares()
        own, earlier = (order == index).to(shares), (order < index).to(shares)
        sizes = size.unsqueeze(1) * own + start.unsqueeze(1) * earlier
        logits = 2 * self.bound * (1 - LEAST * self.bins) * shares * (sizes - (shares * sizes).sum(1, keepdim=True))
        first, last = slopes
        knots = first * own[1:] + last * own[:-1]  # inner knots: each is the start of a bin and the end of another
        return torch.cat([logits.flatten(0, 1), knots * (self.raw[2 * self.bins :] + SHIFT).sigmoid()])


def _rational(t: Tensor, slope: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the bin's rise, and log dy/dx, at the position t in [0, 1] within the bin."""
    square, between = t.square(), t * (1 - t)
    below = slope + (first + last - 2 * slope) * between
    rise = last * square + 2 * slope * between + first * (1 - t).square()
    return (slope * square + first * between) / below, rise.log() + 2 * (slope / below).log()


class _Forward(torch.autograd.Function):
    """`Splines.forward`; a derivative in closed form takes half the operations of an automatic one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, bins: int, bound: float) -> tuple[Tensor, Tensor]:
        splines, inside = Splines(raw, bins, bound), x.abs() < bound
        within = x.where(inside, 0.0)
        index, (left, low), (width, height), first, last = splines._bin(within, axis=0)
        slope, t = height / width, (within - left) / width
        risen, log_slope = _rational(t, slope, first, last)
        ctx.splines = splines
        ctx.save_for_backward(inside, index, width, height, first, last, slope, t, risen)
        return (low + height * risen).where(inside, x), log_slope.where(inside, 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_y: Tensor, to_log_slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Apply the chain rule to y = yₖ + Δy N / D and log dy/dx = 2 log s + log R − 2 log D (see `_rational`)."""
        inside, index, width, height, first, last, slope, t, risen = ctx.saved_tensors
        to_low, to_log = to_y.where(inside, 0.0), to_log_slope.where(inside, 0.0)
        rest, square, between, tilt = 1 - t, t.square(), t * (1 - t), 1 - 2 * t
        bend = first + last - 2 * slope
        below = slope + bend * between
        to_n = to_low * height / below
        to_d = -(to_n * risen + 2 * to_log / below)
        to_r = to_log / (last * square + 2 * slope * between + first * rest.square())
        to_t = to_n * (2 * slope * t + first * tilt) + to_d * bend * tilt
        to_t = (to_t + 2 * to_r * (last * t + slope * tilt - first * rest)) / width
        to_slope = 2 * to_log / slope + to_n * square + to_d * (1 - 2 * between) + 2 * to_r * between
        to_slope = to_slope / width
        to_start = torch.stack([-to_t, to_low])
        to_size = torch.stack([-to_slope * slope - to_t * t, to_low * risen + to_slope])
        knots = (to_n + to_d) * between + to_r * rest.square(), to_d * between + to_r * square
        return to_t.where(inside, to_y), ctx.splines._gradient(index, to_start, to_size, knots), None, None
