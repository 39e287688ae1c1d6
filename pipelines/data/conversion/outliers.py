"""Find far outliers: fill values and typing errors that would dominate a scale and make all other values equal."""

from typing import Any, NamedTuple

import numpy as np

from postprior.pipelines.data.arrays import Values

FAR, GAP = 100, 10
"""Outliers lie more than `FAR` times as far from the median as the bulk, and `GAP` times as far as any other value."""
FEW = 100
"""At most one in `FEW` values, or two, are outliers; a fill value that repeats at an end is not counted."""
BOUND = 1e4
"""Greatest |x| of a standardised value in the input of a model. Among n training rows no |x| exceeds √n."""
ROOM = 2
"""If training rows have far outliers, the greatest |x| is `ROOM` times that of the other training values."""


class UsualRange(NamedTuple):
    """Least and greatest value without far outliers, and whether there are far outliers; scalars or arrays."""

    low: Any
    high: Any
    far: Any


def usual_range(values: Values) -> UsualRange:
    """Return the range of finite values (n,), n ≥ 1, without far outliers.

    A gap separates far outliers from heavy tails: outliers lie `FAR` times as far from the median as nearly all other
    values, and `GAP` times as far as any other value.

    >>> usual_range(np.array([36.4, 36.8, 37.1, 39.9, 36.6, 9.97e36]))
    UsualRange(low=36.4, high=39.9, far=True)
    >>> usual_range(np.array([1.0, 3.0, 10.0, 30.0, 100.0, 300.0])).far
    False
    """
    low, high = values.min(), values.max()
    # A fill value repeats at the lower or upper end: try without both ends, the upper end and the lower end.
    for inner in ((values > low) & (values < high), values < high, values > low):
        if (result := _usual_range(values, values[inner])) is not None:
            return result
    return UsualRange(float(low), float(high), far=False)


def _usual_range(values: Values, inner: Values) -> UsualRange | None:
    """Return the usual range of values, judged by the `inner` ones; None if these are too few or nearly constant."""
    if len(inner) < 2 or 2 * len(inner) < len(values):
        return None
    centre = np.median(inner)
    with np.errstate(over="ignore"):
        distance, inner_distance = np.abs(values - centre), np.abs(inner - centre)
        rank = max(len(inner_distance) - 1 - max(2, len(inner_distance) // FEW), len(inner_distance) // 2)
        within = distance <= (reach := FAR * np.partition(inner_distance, rank)[rank])
        far = not within.all() and distance[~within].min() >= GAP * distance[within].max()
    usual = values[within] if far else values
    return UsualRange(float(usual.min()), float(usual.max()), bool(far)) if reach else None
