"""Similarity of all tables together, as the reports of SDMetrics define it (https://docs.sdv.dev/sdmetrics).

    column shapes = mean over columns of 1 − sup |F − G| for numbers, and of 1 − ½ Σ |p − q| for classes
    column pair trends = mean over associated pairs of 1 − |ρ − ρ′| / 2 for two numbers, where ρ is Pearson's
        correlation over the rows that have both, and of 1 − ½ Σ |p − q| over the cells of the contingency table else
    quality = mean of both
    validity = mean over columns of the share of values that are inside the range of the training rows, or are one of
        their categories; a missing cell counts as outside if the training rows miss none in its column

A pair is associated if |ρ| > 0.5, or if Cramér's V of its contingency table is above 0.3, both in the real rows
(`associations`). Numbers are cut into bins in real and in synthetic rows apart. A pair of numbers is left out if one of
its columns is constant in either set.

Column shapes need two observed rows of a column in both sets. A mean in a half-sample is over the columns and pairs
that have a value there. More than 45 columns are compared by about `MOST` of their pairs. The fourth part of the
reports, the structure of a table, is always 1, because samples have the columns and types of the data.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    Floats,
    Ints,
    Score,
    Scores,
    mean_of_present,
)
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.tables.associations import as_classes, contingency, cramers_v, pearson
from postprior.pipelines.metrics.tables.columns import Limits, Sides, columns_of

MOST = 1000  # maximum number of pairs of columns that are compared
CORRELATED, ASSOCIATED = 0.5, 0.3  # associations of pairs in real rows above which they are compared
NO_COLUMN = Missing("no column has two observed rows in both sets")
NO_PAIR = Missing(
    f"no pair of columns is associated in the real rows: no correlation is above {CORRELATED}, and no Cramér's V is "
    f"above {ASSOCIATED}"
)


def table_scores(
    real: Dataset, real_weights: Floats, fake: Dataset, fake_weights: Floats, limits: Limits | None = None
) -> Scores:
    """Return the scores of all tables together, and the column shapes of each table as "column_shapes/<modality>".

    Without tables there are none, and without `limits` of the training rows no validity. Weights: (1 + B, N) and
    (1 + B, N′).
    """
    columns = columns_of(real, fake)
    if not columns:
        return {}
    weights = real_weights, fake_weights
    shapes = [column_shape(sides, *weights) for sides in columns]
    scores: Scores = {
        "column_shapes": _mean(shapes, NO_COLUMN),
        "column_pair_trends": _mean(_trends(columns, *weights), NO_PAIR),
    }
    scores["quality"] = mean_of_present(list(scores.values()))
    if limits is not None:
        scores["validity"] = _mean([*valid_shares(columns, limits, fake_weights)], NO_COLUMN)
    for table in dict.fromkeys(sides.table.name for sides in columns):
        own = [shape for sides, shape in zip(columns, shapes, strict=True) if sides.table.name == table]
        scores[f"column_shapes/{table}"] = _mean(own, NO_COLUMN)
    return scores


def pairs_of_columns(columns: int) -> Iterable[tuple[int, int]]:
    """Return all pairs of columns, or about `MOST` of them, drawn at random but the same for every set of rows."""
    if columns * (columns - 1) // 2 <= MOST:
        return combinations(range(columns), 2)
    drawn = np.sort(np.random.default_rng(0).integers(0, columns, (2 * MOST, 2)), axis=1)
    different = drawn[drawn[:, 0] < drawn[:, 1]][:MOST]
    return [(m, n) for m, n in np.unique(different, axis=0).tolist()]


def column_shape(sides: Sides, real_weights: Floats, fake_weights: Floats) -> Floats:
    """Return 1 − the distance (1 + B,) of the distributions of a column; NaN where a set has fewer than two rows."""
    seen = [~np.isnan(values) for values in (sides.real, sides.fake)]
    x, y = sides.real[seen[0]], sides.fake[seen[1]]
    w, v = real_weights[:, seen[0]], fake_weights[:, seen[1]]
    values, codes = np.unique(np.concatenate([x, y]), return_inverse=True)
    apart = _shares(codes[: len(x)], len(values), w) - _shares(codes[len(x) :], len(values), v)
    distance = np.abs(apart).sum(1) / 2 if sides.classes else np.abs(apart.cumsum(1)).max(1, initial=0.0)
    enough = ((w > 0).sum(1) >= FEWEST) & ((v > 0).sum(1) >= FEWEST)
    return np.where(enough, 1 - distance, np.nan)


def _trends(columns: Sequence[Sides], real_weights: Floats, fake_weights: Floats) -> list[Floats]:
    """Return the similarity (1 + B,) of every associated pair of columns."""
    classes = [[as_classes(side, sides.classes) for side in (sides.real, sides.fake)] for sides in columns]
    varying = [all(len(np.unique(x[~np.isnan(x)])) > 1 for x in (sides.real, sides.fake)) for sides in columns]
    trends = []
    for m, n in pairs_of_columns(len(columns)):
        left, right = columns[m], columns[n]
        if left.classes or right.classes:
            trend = _contingency(classes[m], classes[n], real_weights, fake_weights)
        elif varying[m] and varying[n]:
            trend = _correlation(left, right, real_weights, fake_weights)
        else:
            trend = None
        trends += [] if trend is None else [trend]
    return trends


def _correlation(left: Sides, right: Sides, real_weights: Floats, fake_weights: Floats) -> Floats | None:
    """Return 1 − half the difference (1 + B,) of two correlations; None if the real rows have none."""
    real = pearson(left.real, right.real, real_weights[:1])
    if not abs(real[0]) > CORRELATED:
        return None
    real, fake = pearson(left.real, right.real, real_weights), pearson(left.fake, right.fake, fake_weights)
    return 1 - np.abs(real - fake) / 2


def _contingency(left: list[Ints], right: list[Ints], real_weights: Floats, fake_weights: Floats) -> Floats | None:
    """Return 1 − the distance (1 + B,) of two contingency tables; None if the real rows have no association."""
    if not cramers_v(contingency(left[0], right[0])) > ASSOCIATED:
        return None
    width = max(codes.max() for codes in right) + 1
    joint = [one * width + other for one, other in zip(left, right, strict=True)]
    values, codes = np.unique(np.concatenate(joint), return_inverse=True)
    rows = len(joint[0])
    apart = _shares(codes[:rows], len(values), real_weights) - _shares(codes[rows:], len(values), fake_weights)
    return 1 - np.abs(apart).sum(1) / 2


def _shares(codes: Ints, count: int, weights: Floats) -> Floats:
    """Return the share (B, count) of the weights (B, N) of every code; NaN in lines without weight."""
    shares = np.zeros((len(weights), count))
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    if len(present):
        shares[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return shares / weights.sum(1, keepdims=True)


def valid_shares(columns: Sequence[Sides], limits: Limits, weights: Floats) -> Floats:
    """Return by column the share (C, 1 + B) of synthetic cells that the training rows allow. Weights: (1 + B, N′)."""
    rows = np.stack([sides.fake for sides in columns], axis=1)
    missing = np.isnan(rows)
    valid = (rows >= limits.low) & (rows <= limits.high)
    for c in np.unique(limits.categories[:, 0]):
        valid[:, c] = np.isin(rows[:, c], limits.categories[limits.categories[:, 0] == c, 1])
    counted = ~missing | ~limits.nullable
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((weights @ valid) / (weights @ counted)).T


def _mean(values: Sequence[Floats], none: Missing) -> Score:
    """Return the mean (1 + B,) over those of the values (1 + B,) that the full sample has; `none` if there are none."""
    kept = np.array([value for value in values if np.isfinite(value[0])])
    if not len(kept):
        return none
    present = np.isfinite(kept)
    with np.errstate(invalid="ignore"):
        return np.where(present, kept, 0).sum(0) / present.sum(0)
