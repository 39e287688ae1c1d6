"""Far outliers: fill values and slips that would make all other values one number if a scale were made of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Values = np.ndarray[Any, np.dtype[Any]]
FAR, GAP = 100, 10
"""How many times farther than the others outliers lie from the median, and than the farthest of the others."""
FEW = 100
"""Outliers are a FEW-th of the values at most, or two, beside what repeats at an end, as a fill value does."""
BOUND = 1e4
"""Greatest |x| that a model is shown of a standardised value. Among n training rows none is beyond √n."""
ROOM = 2
"""Where training rows have far outliers, the greatest |x| is so many times that of their others."""


class Usual(NamedTuple):
    """Least and greatest of the values that are no far outliers, and whether there are such; or arrays of these."""

    low: Any
    high: Any
    far: Any


def usual(values: Values) -> Usual:
    """Where finite values (n,), one or more, usually lie.

    Outliers are told from heavy tails by the empty space before them: they lie `FAR` times as far from the median as
    all but a few of the others, and `GAP` times as far as any.

    >>> usual(np.array([36.4, 36.8, 37.1, 39.9, 36.6, 9.97e36]))
    Usual(low=36.4, high=39.9, far=True)
    >>> usual(np.array([1.0, 3.0, 10.0, 30.0, 100.0, 300.0])).far
    False
    """
    ends = float(values.min()), float(values.max())
    inside = values[(values > ends[0]) & (values < ends[1])]
    if len(inside) < 2 or 2 * len(inside) < len(values):
        return Usual(*ends, far=False)
    centre = np.median(inside)
    with np.errstate(over="ignore"):
        distance = np.abs(values - centre)
        others = np.abs(inside - centre)
        place = max(len(others) - 1 - max(2, len(others) // FEW), len(others) // 2)
        within = distance <= (reach := FAR * np.partition(others, place)[place])
        if not reach or within.all() or distance[~within].min() < GAP * distance[within].max():
            return Usual(*ends, far=False)
    return Usual(float(values[within].min()), float(values[within].max()), far=True)
