"""Distributions of one column or feature in several sets of rows: shares of the bins of numbers, or of classes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import Floats

BINS = 20  # of numbers, about; fewer rows have fewer bins
TAIL = 0.01  # share of the values at each end that are in the outermost bins
CLASSES = 8  # classes that have a share of their own, at most
WIDE, SKEW = 50.0, 5.0
"""Positive numbers are cut into bins of equal ratios if their ends have a ratio greater than `WIDE`, and half of the
numbers lie in the first of `SKEW` parts."""
STEPS = np.array([1.0, 2.0, 2.5, 5.0, 10.0])  # widths of bins, times a power of ten


@dataclass(frozen=True)
class Marginal:
    """The distribution of a column in several sets of rows, over its observed cells.

    Attributes:
        shares: (K,) by set of rows, which sum to 1; NaN in a set without an observed cell.
        edges: (K + 1,) ends of the bins of numbers; the outermost bins hold all values beyond, too. None for classes.
        classes: (K,) numbers of the classes in the order of their bars; empty for numbers.
        others: number of further classes, whose common share is the last one; 0 if there are none.
    """

    shares: Mapping[str, Floats]
    edges: Floats | None = None
    classes: tuple[int, ...] = ()
    others: int = 0

    @property
    def logarithmic(self) -> bool:
        """Whether the bins of numbers have equal ratios."""
        if self.edges is None or len(self.edges) < 3 or self.edges[0] <= 0:
            return False
        ratios = self.edges[1:] / self.edges[:-1]
        return bool(ratios[0] > 1.01 and np.allclose(ratios, ratios[0]))


def of_numbers(values: Mapping[str, Floats], real: str, fewest: int = 1) -> Marginal:
    """Return the distribution of numbers (n,), NaN where missing; the bins fit those of the set `real`.

    The outermost bins begin within at least `fewest` of its values at each end. Its share of a bin is NaN if one to
    `fewest` − 1 of its values are in the bin.
    """
    observed = {name: numbers[np.isfinite(numbers)] for name, numbers in values.items()}
    edges = _edges(observed, real, fewest)
    last = len(edges) - 2
    shares = {}
    for name, numbers in observed.items():
        places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, last)
        shares[name] = _shares(places, last + 1)
    counts = shares[real] * len(observed[real])
    shares[real] = np.where((counts > 0.5) & (counts < fewest - 0.5), np.nan, shares[real])
    return Marginal(shares, edges)


def of_classes(values: Mapping[str, Floats], real: str, classes: int, fewest: int = 1) -> Marginal:
    """Return the distribution of classes (n,), numbers from 0 to `classes` − 1 and NaN where missing.

    The most frequent classes of the set `real` come first. Those that fewer than `fewest` of its rows have, and those
    after the first `CLASSES`, are counted together.
    """
    counts = {name: np.bincount(x[~np.isnan(x)].astype(int), minlength=classes) for name, x in values.items()}
    every = np.sum([*counts.values()], axis=0)
    occurring = [int(k) for k in np.lexsort((-every, -counts[real])) if every[k]]
    frequent = [k for k in occurring if fewest <= 1 or counts[real][k] >= fewest]
    kept = frequent if len(frequent) == len(occurring) <= CLASSES else frequent[: CLASSES - 1]
    shares = {}
    for name, count in counts.items():
        own = [*count[kept], count.sum() - count[kept].sum()] if len(kept) < len(occurring) else count[kept]
        total = count.sum()
        shares[name] = np.asarray(own) / total if total else np.full(len(own), np.nan)
    return Marginal(shares, None, tuple(kept), len(occurring) - len(kept))


def _edges(values: Mapping[str, Floats], real: str, fewest: int) -> Floats:
    """Return edges of bins of a round width, which hold all but the tails of each set of numbers.

    Values of the data, multiples of their last decimal, lie within bins and not on edges. Other sets widen the range of
    the real numbers by at most its length on either side, but not if the outermost bins must have `fewest` of these.
    """
    from postprior.pipelines.data.conversion.precision import MOST, fewest_decimals  # its package imports pyarrow

    ends = {name: _ends(x, fewest) for name, x in values.items() if len(x)}
    if not ends:
        return np.array([0.0, 1.0])
    known = values[real] if real in ends else np.concatenate(list(values.values()))
    first, last = ends.get(real, _ends(known, fewest))
    room, bins = last - first, int(np.clip(np.ceil(2 * np.cbrt(len(known))), 1, BINS))  # Rice's rule
    low, high = first, last
    if fewest == 1:
        low = max(min(low for low, _ in ends.values()), first - room)
        high = min(max(high for _, high in ends.values()), last + room)
    decimals = int(fewest_decimals(known))
    unit = 10.0**-decimals if decimals <= MOST else 0.0
    if not low < high:
        half = unit / 2 or 0.5
        return np.array([low - half, low + half])
    skewed = known.min() > 0 and high > WIDE * low > 0 and np.median(known) < low + (high - low) / SKEW
    if skewed and low * ((high / low) ** (1 / bins) - 1) > unit:
        least, most = 10.0 ** np.floor(np.log10([low, high]))
        return np.geomspace(np.floor(low / least) * least, np.ceil(high / most) * most, bins + 1)
    width = max(_round_up((high - low) / bins), unit)
    if unit:
        width = unit * np.rint(width / unit)
    return np.arange(np.floor(low / width), np.floor(high / width) + 2) * width - unit / 2


def _ends(values: Floats, fewest: int) -> tuple[float, float]:
    """Return the numbers beyond which the tails of values (n,), n ≥ 1, lie: at least `fewest` − 1 values each."""
    tail = min(max(TAIL, fewest / len(values)), 0.5) if fewest > 1 else TAIL
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _round_up(width: float) -> float:
    """Return the least width of the form 1, 2, 2.5 or 5 times a power of ten that is not below this one."""
    power = 10.0 ** np.floor(np.log10(width))
    return float(STEPS[np.searchsorted(STEPS, width / power * (1 - 1e-9))] * power)


def _shares(places: NDArray[np.integer], count: int) -> Floats:
    """Return the share (count,) of every place; NaN without any."""
    counts = np.bincount(places, minlength=count)
    return counts / len(places) if len(places) else np.full(count, np.nan)
