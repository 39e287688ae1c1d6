"""Read counts that were divided by the total of their row, or the logarithms of such numbers, as counts again.

The positive amounts of a row are whole multiples k u of one unit u, which stands for a count of 1: u = c / t for rows
divided by their totals t and multiplied by c. A model of the counts k draws the few values that each row of the data
takes, and their Poisson noise. The total t may include values that the vector lacks, so that u is another variable. Its
logarithm is modelled by a linear regression on the logarithm of the total T of the counts of the vector,

    log u = a + b log T + s ε,    ε ~ N(0, 1).

The noise ε of a row is a hash of its counts: rows decode to the same values wherever they stand.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from postprior.pipelines.data.arrays import Rows, Values, chunks
from postprior.pipelines.data.conversion.zero_heavy import (
    AMOUNTS,
    MOST_LOGARITHM,
    TRIED,
    Transform,
    share_of_zeros,
)
from postprior.pipelines.texts import shell_quoted

NORMALISED: dict[str, tuple[Transform, Transform]] = {
    "normalised_count": AMOUNTS["nonnegative"],
    "log_normalised_count": AMOUNTS["log1p"],
}
"""Kinds of normalised counts: how values become amounts, and back."""
NEAR, NEARLY_ALL, SMALL = 0.02, 0.95, 20
"""Distance from a whole number, share of values that have to be so near, and the greatest multiple that is tried."""
LEAST = (1, 2, 3)
"""Counts that the least positive amount of a row may stand for."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
"""The odd number of Fibonacci hashing (Knuth 1998, The Art of Computer Programming 3, section 6.4)."""

Unit = tuple[float, float, float]
"""Intercept a, slope b and standard deviation s of the logarithm of the unit of a row."""


def normalised_kind(array: Rows, rows: Values) -> str | None:
    """Return the kind of the normalised counts that a vector (n, X) holds in its first rows; None if it holds others.

    >>> counts = np.random.default_rng(0).poisson(0.7, (50, 40)) + np.eye(50, 40)
    >>> shares = counts / counts.sum(1, keepdims=True)
    >>> [normalised_kind(values, np.arange(50)) for values in (shares, np.log1p(1e4 * shares), np.sqrt(shares))]
    ['normalised_count', 'log_normalised_count', None]
    """
    values = np.nan_to_num(array[rows[:TRIED]].astype(np.float64))
    for kind, (to_amounts, _) in NORMALISED.items():
        if (kind == "normalised_count" or values.max(initial=0) <= MOST_LOGARITHM) and are_multiples(
            to_amounts(values)
        ):
            return kind
    return None


def told(title: str, kind: str, array: Rows, rows: Values) -> str:
    """Return a line that tells how normalised counts are read, and the option that reads them otherwise."""
    form = "counts, divided by the total of their row"
    form, other = (f"log(1 + {form})", "log1p") if kind == "log_normalised_count" else (form, "nonnegative")
    zeros = share_of_zeros(array, rows)
    return f"{title}: {form}, {zeros:.0%} zeros, read as counts again; --kind {shell_quoted(title)}={other} keeps them"


def are_multiples(amounts: Values) -> bool:
    """Whether nearly all positive amounts (n, X) are whole multiples of a unit of their row, and not all equal it."""
    counts, unit = counts_of(amounts)
    positive = (amounts > 0) & (counts <= SMALL)
    if not positive.any():
        return False
    near = np.abs((amounts / unit - counts)[positive]) <= NEAR
    return near.mean() >= NEARLY_ALL and bool((counts[positive] > 1).mean() > 1 - NEARLY_ALL)


def counts_of(amounts: Values) -> tuple[Values, Values]:
    """Return the counts (n, X) and the unit (n, 1) of rows of amounts (n, X); NaN stays, rows of zeros have the unit 1.

    The least positive amount of a row stands for a count of 1, or for the least other one of `LEAST` with which nearly
    all amounts are whole multiples.

    >>> counts, unit = counts_of(np.array([[0.0, 0.5, 1.0, 2.0], [0.6, 0.9, 1.5, 0.0]]))
    >>> counts.tolist(), unit.round(3).tolist()
    ([[0.0, 1.0, 2.0, 4.0], [2.0, 3.0, 5.0, 0.0]], [[0.5], [0.3]])
    """
    positive = amounts > 0
    least = np.where(positive, amounts, np.inf).min(1, keepdims=True, initial=np.inf)
    ratio = amounts / np.where(np.isfinite(least), least, 1)
    units = np.ones_like(least)
    small = positive & (ratio <= SMALL)
    for count in reversed(LEAST):
        whole = small & (np.abs(ratio * count - np.rint(ratio * count)) <= NEAR)
        units = np.where(whole.sum(1, keepdims=True) >= NEARLY_ALL * small.sum(1, keepdims=True), count, units)
    counts = np.rint(ratio * units)
    weights = np.where(positive, counts, 0)
    squares = (weights**2).sum(1, keepdims=True)
    unit = np.where(squares > 0, (np.where(positive, amounts, 0) * weights).sum(1, keepdims=True), 1)
    unit = unit / np.maximum(squares, 1)  # least squares: large multiples determine the unit best
    return np.where(positive, np.maximum(np.rint(amounts / unit), 1), amounts), unit


def learn_unit(array: Rows, rows: Values, kind: str) -> Unit:
    """Fit the regression of the unit of a row on its total, in the rows (n, X) that are not all 0."""
    logarithms = []
    for chunk in chunks(array, rows):
        counts, unit = counts_of(NORMALISED[kind][0](chunk.astype(np.float64)))
        total = np.nansum(counts, 1)
        logarithms.append(np.log([total[total > 0], unit[total > 0, 0]]))
    total, unit = np.concatenate(logarithms, 1)
    spread = total.var()
    slope = float(((total - total.mean()) * (unit - unit.mean())).mean() / spread) if spread > 0 else 0.0
    intercept = float(unit.mean() - slope * total.mean())
    return intercept, slope, float((unit - intercept - slope * total).std())


def drawn_units(counts: Values, unit: Unit) -> Values:
    """Return the units (n, 1) of rows of counts (n, X), of the regression and with a hash of the counts as noise."""
    intercept, slope, deviation = unit
    whole = np.nan_to_num(counts)
    total = np.maximum(whole.sum(1), 1)
    return np.exp(intercept + slope * np.log(total) + deviation * ndtri(_hashed(whole)))[:, None]


def _hashed(counts: Values) -> NDArray[np.float64]:
    """Return a number in (0, 1) for each row of counts (n, X)."""
    with np.errstate(over="ignore"):
        weights = np.arange(1, counts.shape[1] + 1, dtype=np.uint64) * MIXER | np.uint64(1)
        mixed = (counts.astype(np.uint64) * weights).sum(1, dtype=np.uint64) * MIXER
        mixed = (mixed ^ (mixed >> np.uint64(32))) * MIXER
    return ((mixed >> np.uint64(40)) + 0.5) / 2**24


def in_units(kind: str, counts: Values, unit: Values) -> Any:
    """Return values of a kind for counts (n, X) and the units (n, 1) of their rows."""
    return NORMALISED[kind][1](counts * unit)


def to_counts(kind: str, values: Values) -> Values:
    """Return the counts (n, X) in values of a kind; NaN stays."""
    return counts_of(NORMALISED[kind][0](values))[0]


def units_in(kind: str, values: Values, otherwise: Values) -> Values:
    """Return the units (n, 1) in values (n, X) of a kind; `otherwise` (n, 1) in rows without a positive value."""
    amounts = NORMALISED[kind][0](values)
    return np.where((amounts > 0).any(1, keepdims=True), counts_of(amounts)[1], otherwise)
