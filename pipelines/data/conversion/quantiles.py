"""Normal scores: a monotone map that gives the values of a column the distribution N(0, 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import ndtr, ndtri

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.categories import RARE

PARTS = 100
"""Training rows are divided into so many parts, with knots between them. The outermost parts are divided again."""
SPIKE = 0.05
"""A value of at least this share of the training rows is a part of its own: it is never interpolated."""
SMALL = 1e-4
"""The mean score of an interval of a smaller probability is its middle."""


@dataclass(frozen=True)
class NormalScores:
    """The map x = s(v), linear between knots, with s(v_k) = Φ⁻¹(share of the training rows up to v_k).

    Every part of the training rows has two knots, where it begins and where it ends. A value with decimals fills the
    interval of the numbers that are rounded to it: its x is the mean of the scores in the interval, all of which
    become this value again. A spike of another value is a part with equal knots. Beyond the knots, x changes by 1 per
    `scale`.

    Args:
        values: the knots v_k (K,), not decreasing.
        scores: their scores (K,), not decreasing.
        scale: the standard deviation of the training rows.
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]
    scale: float

    @classmethod
    def fit(cls, values: Values, half: float, scale: float) -> Self:
        """Learn the knots from training values (n,), n ≥ 1; numbers within `half` of a value are rounded to it.

        A knot between two values that fewer than `RARE` rows have is their midpoint, and no part has fewer than `RARE`
        rows, except between spikes.
        """
        levels, counts = np.unique(values, return_counts=True)
        n, up_to = len(values), counts.cumsum()
        spike = counts >= max(SPIKE * n, RARE)
        last = _ends(up_to, np.flatnonzero(spike))  # the last level of every part
        shares = np.clip(np.append(0, up_to[last]) / n, 0.5 / n, 1 - 0.5 / n)
        low, high = _edges(levels, counts >= RARE, spike, last, half)
        knots = np.maximum.accumulate(np.stack([low, high], 1).ravel())
        scores = np.stack([ndtri(shares[:-1]), ndtri(shares[1:])], 1).ravel()
        new = np.append(True, (np.diff(knots) > 0) | (np.diff(scores) > 0))
        return cls(tuple(knots[new].tolist()), tuple(scores[new].tolist()), scale)

    def __call__(self, values: Values) -> Values:
        """Return the scores of values, without regard to spikes."""
        beyond = values - np.clip(values, self.values[0], self.values[-1])
        return np.interp(values, self.values, self.scores) + beyond / self.scale

    def mean(self, values: Values, half: float) -> Values:
        """Return the mean score of the numbers that are rounded to each value (n,), under N(0, 1)."""
        values = np.asarray(values, np.float64)
        ends = (values - half, values + half) if half else (np.nextafter(values, -np.inf), np.nextafter(values, np.inf))
        low, high = self(ends[0]), self(ends[1])
        middle, mass = (low + high) / 2, ndtr(high) - ndtr(low)
        wide = mass > SMALL
        middle[wide] = (_density(low[wide]) - _density(high[wide])) / mass[wide]
        return middle

    def intervals(self, half: float) -> tuple[tuple[float, float], ...]:
        """Return the lowest and the highest score of every spike."""
        low, high = np.array(self.scores[:-1]), np.array(self.scores[1:])
        single = np.diff(self.values) <= 2 * half * (1 + 1e-6)
        spikes = single & (ndtr(high) - ndtr(low) >= SPIKE * (1 - 1e-6))
        return tuple(zip(low[spikes].tolist(), high[spikes].tolist(), strict=True))

    def inverse(self, scores: Values) -> Values:
        """Return the values with these scores, not rounded."""
        beyond = scores - np.clip(scores, self.scores[0], self.scores[-1])
        return np.interp(scores, self.scores, self.values) + beyond * self.scale

    def describe(self) -> dict[str, Any]:
        """JSON-able description: the keyword arguments of the constructor."""
        return {"values": list(self.values), "scores": list(self.scores), "scale": self.scale}

    @classmethod
    def from_description(cls, entry: Mapping[str, Any]) -> Self:
        """Return the map that `describe` described."""
        values, scores = (tuple(map(float, entry[key])) for key in ("values", "scores"))
        if len(values) != len(scores) or not values:
            raise ValueError(f"{len(values)} values and {len(scores)} scores of a column")
        return cls(values, scores, float(entry["scale"]))


def _density(x: Values) -> Values:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def _ends(up_to: Values, spikes: Values) -> Values:
    """Return the last level of every part of the levels; `up_to` counts the values up to each level."""
    n = up_to[-1]
    tails = 0.5 ** np.arange(1, max(1, np.log2(n / PARTS / RARE) + 1)) / PARTS
    wanted = np.searchsorted(up_to, n * np.concatenate([tails, np.arange(1, PARTS) / PARTS, 1 - tails]))
    always = {*spikes.tolist(), *(spikes[spikes > 0] - 1).tolist(), len(up_to) - 1}
    ends: list[int] = []
    before = 0
    for end in sorted({*wanted.tolist(), *always}):
        if end in always or min(up_to[end] - before, n - up_to[end]) >= RARE:
            ends.append(end)
            before = up_to[end]
    return np.array(ends)


def _edges(levels: Values, common: Values, spike: Values, last: Values, half: float) -> tuple[Values, Values]:
    """Return where each part begins and ends: in the middle between two levels, or at the interval of one of them.

    The latter is the case at a spike, and where values have decimals also beside a spike and at a `common` value.
    """
    first = np.append(0, last[:-1] + 1)
    above, below, middle = first[1:], last[:-1], (levels[last[:-1]] + levels[first[1:]]) / 2
    low, high = levels[first] - half, levels[last] + half
    exact = half > 0
    low[1:] = np.where(spike[above] | (exact & (common[above] | spike[below])), low[1:], middle)
    high[:-1] = np.where(spike[below] | (exact & (common[below] | spike[above])), high[:-1], middle)
    return low, high
