"""Far outliers: fill values and slips that would make all other values one number if a scale were made of them."""

from typing import Any, NamedTuple

import numpy as np

from postprior.pipelines.data.arrays import Values

FAR, GAP = 100, 10
"""How many times farther than the others outliers lie from the median, and than the farthest of the others."""
FEW = 100
"""Outliers are a FEW-th of the values at most, or two, beside what repeats at an end, as a fill value does."""
BOUND = 1e4
"""Greatest |x| that a model is shown of a standardised value. Among n training rows none is beyond √n."""
ROOM = 2
"""Where training rows have far outliers, the greatest |x| is so many times that of their others."""


class UsualRange(NamedTuple):
    """Least and greatest of the values that are no far outliers, and whether there are such; or arrays of these."""

    low: Any
    high: Any
    far: Any


def usual_range(values: Values) -> UsualRange:
    """Where finite values (n,), one or more, usually lie.

    Outliers are told from heavy tails by the empty space before them: they lie `FAR` times as far from the median as
    all but a few of the others, and `GAP` times as far as any.

    >>> usual_range(np.array([36.4, 36.8, 37.1, 39.9, 36.6, 9.97e36]))
    UsualRange(low=36.4, high=39.9, far=True)
    >>> usual_range(np.array([1.0, 3.0, 10.0, 30.0, 100.0, 300.0])).far
    False
    """
    low, high = values.min(), values.max()
    for others in ((values > low) & (values < high), values < high, values > low):  # a fill value repeats, at an end
        if (found := _usual_range(values, values[others])) is not None:
            return found
    return UsualRange(float(low), float(high), far=False)


def _usual_range(values: Values, others: Values) -> UsualRange | None:
    """What is usual if all values lie about where others of them do; None where these are few or all but the same."""
    if len(others) < 2 or 2 * len(others) < len(values):
        return None
    centre = np.median(others)
    with np.errstate(over="ignore"):
        distance, known = np.abs(values - centre), np.abs(others - centre)
        place = max(len(known) - 1 - max(2, len(known) // FEW), len(known) // 2)
        within = distance <= (reach := FAR * np.partition(known, place)[place])
        far = not within.all() and distance[~within].min() >= GAP * distance[within].max()
    usual_ones = values[within] if far else values
    return UsualRange(float(usual_ones.min()), float(usual_ones.max()), bool(far)) if reach else None
