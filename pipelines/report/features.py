"""What the report shows of a vector: distributions of its features, and statistics of features and of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import feature_names, vectors_in_units
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.metrics.tables.columns import Sides
from postprior.pipelines.metrics.tables.features import FeatureStatistics, apart, by_mean
from postprior.pipelines.metrics.tables.marginals import Marginal, of_numbers
from postprior.pipelines.metrics.tables.similarity import column_shape
from postprior.stage1_vae.modalities import Modality

MOST = 10_000_000  # values of a set of rows that are read
HARDEST = 8  # features whose distributions are shown
CANDIDATES = 200  # features from which these are chosen
POOLED = 100_000  # values of a group of features, at most
GROUPS = ("Quarter of lowest means", "Second quarter", "Third quarter", "Quarter of highest means")


@dataclass(frozen=True)
class Features:
    """A vector in several sets of rows.

    Attributes:
        key: the name of the modality in files.
        title: its name for readers.
        rows: number of rows of each set that have the vector and were read.
        features: number of features.
        statistics: statistics by set of rows.
        hardest: distributions of the features that differ most from real ones, by name, with the score of the best
            density.
        groups: distributions of all values of groups of features; empty if all features are shown.
        totals: the distribution of the sums of rows; None if values are negative, so that sums and zeros mean nothing.
    """

    key: str
    title: str
    rows: Mapping[str, int]
    features: int
    statistics: Mapping[str, FeatureStatistics]
    hardest: Mapping[str, tuple[Marginal, float]]
    groups: Mapping[str, Marginal]
    totals: Marginal | None


def features_of(vector: Modality, sets: Mapping[str, Dataset], real: str, fewest: int = 1) -> Features:
    """Summarise a vector of sets of rows; `real` names the real rows, and the next set is the best density.

    Of large sets, as many rows are read as have `MOST` values together. `fewest` is that of `of_numbers`;
    statistics of features with fewer values of real rows that are not 0 are NaN.
    """
    values = {name: _values(vector, rows) for name, rows in sets.items()}
    statistics = {name: FeatureStatistics.of(x) for name, x in values.items()}
    best = next(name for name in sets if name != real)
    names = feature_names(vector, sets[real].conversion)
    hardest = {
        names[j]: (of_numbers({name: x[:, j] for name, x in values.items()}, real, fewest), score)
        for j, score in _hardest(vector, values[real], values[best], statistics[real], statistics[best])
    }
    groups = {} if len(names) <= len(hardest) else by_mean(statistics[real].means)
    pooled = {
        title: of_numbers({name: _pooled(x, group) for name, x in values.items()}, real, fewest)
        for title, group in zip(GROUPS, groups, strict=False)
    }
    totals = None
    if np.nanmin(values[real], initial=0.0) >= 0:
        totals = of_numbers({name: own.totals for name, own in statistics.items()}, real, fewest)
    few = ((values[real] != 0) & ~np.isnan(values[real])).sum(0) < fewest
    statistics[real] = statistics[real].without(few if fewest > 1 else np.zeros(len(names), bool))
    rows = {name: len(x) for name, x in values.items()}
    return Features(vector.name, vector.title, rows, len(names), statistics, hardest, pooled, totals)


def _values(vector: Modality, rows: Dataset) -> Floats:
    """Return the values (n, X) of the rows that have the vector, or of evenly spaced ones of many."""
    present = np.flatnonzero(~rows.missing(vector.name).all(1))
    most = max(MOST // vector.shape[0], 2)
    if len(present) > most:
        present = present[np.linspace(0, len(present) - 1, most).astype(int)]
    return vectors_in_units(vector, rows.select(present))


def _hardest(
    vector: Modality, real: Floats, fake: Floats, one: FeatureStatistics, other: FeatureStatistics
) -> list[tuple[int, float]]:
    """Return the features with the lowest scores of their distributions, and the scores, the lowest first."""
    candidates = np.argsort(-apart(one, other), kind="stable")[:CANDIDATES]
    ones = [np.ones((1, len(side))) for side in (real, fake)]
    scores = [float(column_shape(Sides(vector, str(j), False, real[:, j], fake[:, j]), *ones)[0]) for j in candidates]
    order = np.argsort(np.nan_to_num(scores, nan=2.0), kind="stable")[:HARDEST]
    return [(int(candidates[k]), scores[k]) for k in order if scores[k] == scores[k]]


def _pooled(values: Floats, group: Ints) -> Floats:
    """Return the values of a group of features, or evenly spaced ones of many."""
    pooled = values[:, group].reshape(-1)
    return pooled[:: max(len(pooled) // POOLED, 1)]
