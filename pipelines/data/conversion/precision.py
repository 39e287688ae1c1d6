"""The decimals of numbers: how many the values of a file have, and numbers rounded to as many."""

from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Values

MOST = 6
"""Greatest number of decimals that are kept; numbers with more are not rounded."""
EXACT = 2.0**53
"""Whole numbers below are exact as float64."""


def fewest_decimals(values: Values) -> Values:
    """Return the fewest decimals (…) that write the values (n, …) exactly, without NaN; `MOST` + 1 if none do.

    >>> fewest_decimals(np.array([[1.5, 3], [0.25, np.nan], [1.0, 40]])).tolist()
    [2, 0]
    """
    fewest = np.full(values.shape[1:], MOST + 1)
    for decimals in range(MOST, -1, -1):
        exact = (rounded(values, decimals).astype(values.dtype) == values) | np.isnan(values)
        if not (fits := exact.all(0) & (fewest == decimals + 1)).any():
            break
        fewest = np.where(fits, decimals, fewest)
    return fewest


def rounded(values: Values, decimals: Any) -> Values:
    """Round values (n, …) to decimals, a number or (…); more than `MOST` decimals, and NaN, change nothing.

    >>> rounded(np.array([53.999998, 0.6249999, -0.2]), 0).tolist()
    [54.0, 1.0, 0.0]
    """
    power = 10.0 ** np.minimum(decimals, MOST)
    with np.errstate(over="ignore"):
        scaled = np.asarray(values, np.float64) * power
    whole = np.rint(scaled) / power + 0.0  # −0 becomes 0
    return np.where((np.asarray(decimals) <= MOST) & (np.abs(scaled) < EXACT), whole, values)
