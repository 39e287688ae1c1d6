"""Associations of two columns, as the column pair trends of `similarity` define them.

Two columns of numbers have Pearson's correlation ρ over the rows that have both, other pairs Cramér's V of their
contingency table. There, numbers are cut into ten bins of equal width from the least to the greatest value. A missing
class is a class, and a missing number belongs to the bin of the greatest value.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import FEWEST, Floats, Ints, correlation

BINS = 10  # of numbers in a contingency table


def associations(columns: Sequence[Floats], classes: Sequence[bool]) -> Floats:
    """Return the associations (C, C) of columns (N,), NaN where missing; NaN for a constant column of numbers.

    Numbers have ρ, from −1 to 1, and pairs with a column of `classes` V, from 0 to 1. The diagonal is 1.
    """
    found = np.eye(len(columns))
    codes = [as_classes(values, known) for values, known in zip(columns, classes, strict=True)]
    ones = np.ones((1, len(columns[0]) if columns else 0))
    for m, n in combinations(range(len(columns)), 2):
        if classes[m] or classes[n]:
            found[m, n] = cramers_v(contingency(codes[m], codes[n]))
        else:
            found[m, n] = pearson(columns[m], columns[n], ones)[0]
        found[n, m] = found[m, n]
    return found


def contingency(left: Ints, right: Ints) -> Floats:
    """Return how many rows (K, L) have each pair of the classes (N,) of two columns."""
    width = int(right.max(initial=0)) + 1
    height = int(left.max(initial=0)) + 1
    return np.bincount(left * width + right, minlength=height * width).reshape(height, width).astype(float)


def cramers_v(counts: NDArray[np.floating]) -> float:
    """Return Cramér's V of a contingency table (K, L), the root of χ² / n over its maximum; 0 for one row or column."""
    joint = counts[counts.sum(1) > 0][:, counts.sum(0) > 0] / counts.sum()
    expected = joint.sum(1, keepdims=True) * joint.sum(0)
    return float(np.sqrt(((joint - expected) ** 2 / expected).sum() / max(min(joint.shape) - 1, 1)))


def pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return correlations (B,) over the rows that have both values; NaN where there are fewer than two or constants."""
    seen = ~np.isnan(x) & ~np.isnan(y)
    x, y, weights = x[seen], y[seen], weights[:, seen]
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.full(len(weights), np.nan)
    found = correlation((x - x.mean())[:, None], (y - y.mean())[:, None], weights)[:, 0]
    return np.where((weights > 0).sum(1) >= FEWEST, found, np.nan)


def as_classes(values: Floats, classes: bool) -> Ints:
    """Return values (N,) as numbers of classes, a missing one as 0; numbers are cut into bins from 1 on."""
    if classes:
        return np.nan_to_num(values + 1).astype(int)
    if np.isnan(values).all():
        return np.full(len(values), BINS + 1)
    low, high = np.nanmin(values), np.nanmax(values)
    room = 0.0 if low < high else 0.5
    return np.digitize(values, np.linspace(low - room, high + room, BINS + 1))
