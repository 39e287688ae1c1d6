"""Recognise vectors of numbers of at least 0 that are often exactly 0: fractions, amounts, their logarithms."""

from collections.abc import Callable
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Rows, Values, chunks
from postprior.pipelines.data.conversion.outliers import UsualRange
from postprior.pipelines.data.conversion.statistics import Number, as_number
from postprior.pipelines.texts import shell_quoted

Transform = Callable[[Values], Values]
AMOUNTS: dict[str, tuple[Transform, Transform]] = {
    "nonnegative": (np.asarray, np.asarray),
    "log1p": (np.expm1, np.log1p),
}
"""Kinds of zero-heavy vectors: how their values become amounts, and back."""
HEAVY = 0.1
"""Share of zeros from which on a vector is zero-heavy."""
TRIED = 256
"""Number of rows from which the form of the values is recognised."""
MOST_LOGARITHM = 30
"""Logarithms of amounts are smaller."""
EVEN = 1e-4
"""Relative difference of sums of rows that count as equal."""
PASSES = 20
"""Number of times that a row is rescaled to its sum and clipped to its limits."""


def share_of_zeros(array: Rows, rows: Values | None = None) -> float:
    """Return the share of zeros among the values of a vector (n, X) that are not NaN; 0 if there are none."""
    pairs = [((chunk == 0).sum(), (~np.isnan(chunk)).sum()) for chunk in chunks(array, rows)]
    zeros, values = np.sum(pairs, 0)
    return float(zeros / max(values, 1))


def form_of(array: Rows, rows: Values) -> str:
    """Say what zero-heavy values are: fractions, amounts with a common sum, or amounts.

    >>> amounts = np.random.default_rng(0).gamma(0.7, size=(50, 40))
    >>> form_of(amounts / amounts.sum(1, keepdims=True), np.arange(50)), form_of(amounts, np.arange(50))
    ('fractions that sum to 1 in each row', 'amounts')
    """
    if not len(_first(array, rows)):
        return "zeros"
    if (total := common_total(array, rows)) is not None:
        return f"{'fractions' if abs(total - 1) <= EVEN else 'amounts'} that sum to {total:.6g} in each row"
    return "amounts"


def common_total(array: Rows, rows: Values, to_amounts: Transform = np.asarray) -> float | None:
    """Return the sum of the amounts of every row of a vector (n, X), X > 1, if all rows have the same; else None."""
    totals = np.concatenate([to_amounts(chunk.astype(np.float64)).sum(1) for chunk in chunks(array, rows)])
    same = array.shape[1] > 1 and totals.min() > 0 and np.ptp(totals) <= EVEN * totals.max()  # false if one is NaN
    return float(np.median(totals)) if same else None


def with_total(values: Values, total: float, low: Any, high: Any) -> Values:
    """Rescale the rows of values (n, X) to a sum, as far as `low` and `high`, numbers or (X,), let them reach it.

    >>> drawn = np.array([[0.0, 0.2, 0.2], [0.0, 0.0, 0.0]])
    >>> with_total(drawn, 1, np.zeros(3), np.array([0.5, 0.4, 0.7])).round(6).tolist()
    [[0.0, 0.4, 0.6], [0.0, 0.0, 0.0]]
    """
    for _ in range(PASSES):
        sums = values.sum(1, keepdims=True)
        values = np.clip(values * (total / np.where(sums > 0, sums, total)), low, high)
    return values


def like_rows(kind: str, values: Values, total: float | None, low: Any, high: Any) -> Values:
    """Give the amounts of rows (n, X) the total of the data, if these have one.

    Args:
        kind: the kind, which says how values become amounts.
        values: drawn values.
        total: what `common_total` returned, of `with_total`.
        low, high: the range of values, numbers or (X,).
    """
    if total is None:
        return values
    to_amounts, back = AMOUNTS[kind]
    return back(with_total(to_amounts(values), total, to_amounts(low), to_amounts(high)))


def told(title: str, kind: str, array: Rows, rows: Values) -> str:
    """Return a line that tells how a zero-heavy vector is read, and the option that reads it otherwise."""
    zeros, numeric = share_of_zeros(array, rows), f"--kind {shell_quoted(title)}=numeric"
    return f"{title}: {form_of(array, rows)}, {zeros:.0%} zeros, read as {kind}; {numeric} reads them as numeric"


def are_logarithms(array: Rows, rows: Values) -> bool:
    """Whether the positive values of a vector (n, X) are rather log(1 + a) of log-normal amounts a than log-normal.

    Rows with a common sum are not. Otherwise the likelihoods of both are compared, with moments by coordinate, in the
    first rows. Normalised counts have kinds of their own.

    >>> rng = np.random.default_rng(0)
    >>> amounts = np.exp(rng.normal(1, 1, (60, 5))) * rng.integers(0, 2, (60, 5))
    >>> are_logarithms(amounts, np.arange(60)), are_logarithms(np.log1p(amounts), np.arange(60))
    (False, True)
    """
    values = _first(array, rows)
    if not len(values) or values.max() > MOST_LOGARITHM or common_total(array, rows) is not None:
        return False
    positive = values > 0
    values = np.where(positive, values, 1)
    logarithm = np.log(values)
    slope = np.log(-np.expm1(-values))  # log(1 + exp(n)) = v for n = v + slope, and dv/dn = exp(slope)
    return _likelihood(values + slope, slope, positive) > _likelihood(logarithm, logarithm, positive)


def _likelihood(n: Values, log_slope: Values, positive: Values) -> float:
    """Return the greatest log-likelihood, up to a constant, of functions of normal n (n, X) with slopes exp(log_slope).

    Only the values marked in `positive` count. Coordinates have their own moments, and deviations of 0.01 or more.
    """
    count = positive.sum(0)
    mean = np.where(positive, n, 0).sum(0) / np.maximum(count, 1)
    variance = np.where(positive, (n - mean) ** 2, 0).sum(0) / np.maximum(count, 1)
    return float(-(count * np.log(np.maximum(variance, 1e-4))).sum() / 2 - log_slope[positive].sum())


def _first(array: Rows, rows: Values) -> Values:
    """Return the first rows that have a positive value, with 0 in place of NaN."""
    values = np.nan_to_num(array[rows[:TRIED]].astype(np.float64))
    return values[values.any(1)]


def positive_mean(array: Rows, rows: Values, usual: UsualRange) -> Number:
    """Return the geometric mean of the positive values of each coordinate, without far outliers; 1 if it has none."""
    count, logarithms = np.zeros(array.shape[1:]), np.zeros(array.shape[1:])
    for chunk in chunks(array, rows):
        positive = (chunk > 0) & (chunk >= usual.low) & (chunk <= usual.high)
        count += positive.sum(0)
        logarithms += np.log(np.where(positive, chunk, 1), dtype=np.float64).sum(0)
    return as_number(np.exp(logarithms / np.maximum(count, 1)))
