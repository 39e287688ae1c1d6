"""Statistics of the features of vectors, and of the sums of their rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

GROUPS = 4  # of features, by their means


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of X features over the observed values of N rows; NaN where there is none.

    Attributes:
        means, variances: (X,).
        zeros: (X,), the share of values that are exactly 0.
        totals: (N,), the sum of the values of a row, in omics the library size; NaN for rows that lack a value.
    """

    means: Floats
    variances: Floats
    zeros: Floats
    totals: Floats

    @classmethod
    def of(cls, values: Floats) -> "FeatureStatistics":
        """Return the statistics of values (N, X), NaN where missing."""
        seen = ~np.isnan(values)
        count = np.where(seen.any(0), seen.sum(0), np.nan)
        means = np.nansum(values, 0) / count
        squares = np.nansum((values - means) ** 2, 0) / count
        return cls(means, squares, (values == 0).sum(0) / count, values.sum(1))

    def without(self, hidden: NDArray[np.bool_]) -> "FeatureStatistics":
        """Return the statistics with NaN for some of the features, hidden (X,)."""
        means, variances, zeros = (np.where(hidden, np.nan, x) for x in (self.means, self.variances, self.zeros))
        return FeatureStatistics(means, variances, zeros, self.totals)


def by_mean(means: Floats) -> list[Ints]:
    """Return the numbers of the features in groups of about equal size, those with the least means first."""
    return np.array_split(np.argsort(means, kind="stable"), GROUPS)


def apart(one: FeatureStatistics, other: FeatureStatistics) -> Floats:
    """Return how far features (X,) differ in mean, spread and zeros, each about 1 for a great difference."""
    spread = np.sqrt(one.variances) + 1e-12
    ratio = np.abs(np.log((np.sqrt(other.variances) + 1e-12) / spread))
    found = np.abs(one.means - other.means) / spread + ratio + np.abs(one.zeros - other.zeros)
    return np.nan_to_num(found, nan=0.0, posinf=np.finfo(float).max)
