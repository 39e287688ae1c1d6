"""Fidelity of tables, column by column and pair by pair, of observed cells.

    marginal similarity = mean over columns of 1 − sup |F − G| (Kolmogorov–Smirnov), 1 − ½ Σ |p − q| of classes
    correlation similarity = mean over pairs of columns of 1 − |ρ − ρ′| / 2 of Pearson's correlations,
        1 − |η − η′| of correlation ratios (a number and a class), 1 − |V − V′| of Cramér's V (two classes)

as the Synthetic Data Vault scores tables (Patki et al. 2016, https://doi.org/10.1109/DSAA.2016.49). A bernoulli column
is a class among marginals, a value between 0 and 1 counting as that share of a row, and a number among correlations.
Columns and pairs of which some half-sample keeps fewer than two observed rows are left out; where all are, the
similarity is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    Floats,
    Scores,
    correlation,
    mean_of,
    too_few,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.modalities import Column, Modality

FEW = {
    "marginal_similarity": Missing("no column has two observed rows in every half-sample"),
    "correlation_similarity": Missing("no two columns have two observed rows in every half-sample"),
}
CLASSES = ("categorical", "bernoulli")  # likelihoods of columns whose marginals are shares


@dataclass(frozen=True)
class Cells:
    """One column of a set of rows: its values (n,) where it is observed, and these rows of all N."""

    column: Column
    values: Floats
    observed: NDArray[np.bool_]

    @property
    def shares(self) -> Floats:
        """How much of each observed row is of each class: (n, K)."""
        if self.column.likelihood == "bernoulli":
            return np.stack([1 - self.values, self.values], axis=1)
        return np.eye(self.column.classes or 1)[self.values.astype(int)]

    def known(self, weights: Floats) -> bool:
        """Whether every half-sample of weights (B, N) keeps two observed rows."""
        return int((weights[:, self.observed] > 0).sum(1).min()) > 1

    def where(self, rows: NDArray[np.bool_]) -> "Cells":
        """The cells of some rows (N,) that are all observed."""
        return Cells(self.column, self.values[rows[self.observed]], rows)


def table_scores(real: Dataset, real_weights: Floats, fake: Dataset, fake_weights: Floats) -> Scores:
    """Both similarities of every table under weights (1 + B, N) and (1 + B, N'), as "<score>/<modality>".

    A table of one column has no correlations.
    """
    scores: Scores = {}
    for modality, ours, theirs in _tables(real, fake):
        columns = [(x, y) for x, y in zip(ours, theirs, strict=True) if x.known(real_weights) and y.known(fake_weights)]
        found = {
            "marginal_similarity": [_marginal(*column, real_weights, fake_weights) for column in columns],
            "correlation_similarity": list(_correlations(columns, real_weights, fake_weights)),
        }
        if len(modality.columns) < 2:
            del found["correlation_similarity"]
        scores |= {f"{name}/{modality.name}": mean_of(lines) if lines else FEW[name] for name, lines in found.items()}
    return scores


def column_tests(real: Dataset, fake: Dataset) -> dict[str, dict[str, dict[str, Any]]]:
    """Whether a column's values could be of one distribution, by modality and column: test, statistic and p-value.

    Tests take rows for independent: where several are of one source, p-values are too small. A column that fewer than
    two rows of either set have is missing.
    """
    from scipy.stats import chi2_contingency, ks_2samp

    def test(x: Cells, y: Cells) -> dict[str, Any]:
        if few := too_few(min(len(x.values), len(y.values)), FEWEST, "rows with this column on either side"):
            return few.written
        if x.column.likelihood not in CLASSES:
            name, found = "ks", ks_2samp(x.values, y.values, method="asymp")
        else:
            counts = np.stack([of.shares.sum(0) for of in (x, y)])
            name, found = "chi_square", chi2_contingency(counts[:, counts.sum(0) > 0], correction=False)
        return {"test": name, "statistic": float(found.statistic), "p_value": float(found.pvalue)}

    return {
        modality.name: {x.column.name: test(x, y) for x, y in zip(ours, theirs, strict=True)}
        for modality, ours, theirs in _tables(real, fake)
    }


def add_column_tests(written: dict[str, Any], real: Dataset, fake: Dataset) -> None:
    """Put the tests of every table's columns into a row as written."""
    for modality, columns in column_tests(real, fake).items():
        written["modalities"][modality]["columns"] = columns


def _tables(real: Dataset, fake: Dataset) -> Iterator[tuple[Modality, list[Cells], list[Cells]]]:
    """The tables that both sets have, and the cells of their columns in each."""
    for modality in real.modalities:
        if modality.kind == "table":
            yield modality, _columns(real, modality), _columns(fake, modality)


def _columns(dataset: Dataset, table: Modality) -> list[Cells]:
    """The observed cells of every column of a table."""
    values, observed = np.asarray(dataset.data[table.name], np.float64), ~dataset.missing(table.name)
    columns = zip(table.columns, values.T, observed.T, strict=True)
    return [Cells(column, some[seen], seen) for column, some, seen in columns]


def _marginal(x: Cells, y: Cells, real_weights: Floats, fake_weights: Floats) -> Floats:
    """1 − the distance (B,) between the distributions of a column."""
    w, v = real_weights[:, x.observed], fake_weights[:, y.observed]
    if x.column.likelihood in CLASSES:
        return 1 - np.abs(weighted_mean(x.shares, w) - weighted_mean(y.shares, v)).sum(1) / 2
    values = np.concatenate([x.values, y.values])
    order = values.argsort()
    steps = np.concatenate([_normalised(w), -_normalised(v)], axis=1)[:, order]
    last = np.append(np.diff(values[order]) > 0, True)  # of equal values
    return 1 - np.abs(steps.cumsum(1)[:, last]).max(1)


def _correlations(columns: list[tuple[Cells, Cells]], real_weights: Floats, fake_weights: Floats) -> Iterator[Floats]:
    """1 − the change (B,) of the association of every pair of columns, each given in the real and in the fake rows."""
    for left, right in combinations(columns, 2):
        sets = [
            (x.where(x.observed & y.observed), y.where(x.observed & y.observed), weights)
            for x, y, weights in zip(left, right, (real_weights, fake_weights), strict=True)
        ]
        if all(x.known(weights) for x, _, weights in sets):
            ours, theirs = (_association(x, y, weights[:, x.observed]) for x, y, weights in sets)
            numbers = all(x.column.likelihood != "categorical" for x in (left[0], right[0]))
            yield 1 - np.abs(ours - theirs) / (2 if numbers else 1)


def _association(x: Cells, y: Cells, weights: Floats) -> Floats:
    """How far two columns of the same n rows go together (B,); 0 where one is constant. Weights (B, n)."""
    classes = [of for of in (x, y) if of.column.likelihood == "categorical"]
    numbers = [of.values - of.values.mean() for of in (x, y) if of.column.likelihood != "categorical"]
    if not numbers:
        return cramers_v(x.shares, y.shares, weights)
    if classes:
        return correlation_ratio(numbers[0], classes[0].shares, weights)
    return correlation(numbers[0][:, None], numbers[1][:, None], weights)[:, 0]


def correlation_ratio(values: Floats, classes: Floats, weights: Floats) -> Floats:
    """η (B,), the root of the share of the variance of values (n,) between classes (n, K) one-hot; weights (B, n)."""
    x = values - values.mean()
    share, total = weighted_mean(classes, weights), weighted_mean(classes * x[:, None], weights)  # (B, K)
    mean = total.sum(1)
    between = np.divide(total**2, share, where=share > 0, out=np.zeros_like(share)).sum(1) - mean**2
    square = weighted_mean(x**2, weights)
    variance = square - mean**2
    varies = variance > 1e-12 * square  # less is rounding
    return np.sqrt(np.divide(between, variance, where=varies, out=np.zeros_like(mean)).clip(0, 1))


def cramers_v(x: Floats, y: Floats, weights: Floats) -> Floats:
    """V (B,) of classes (n, K) and (n, L) one-hot, the root of χ² / n over its maximum by those that occur."""
    joint = np.stack([(x * line[:, None]).T @ y for line in _normalised(weights)])  # (B, K, L)
    expected = joint.sum(2)[:, :, None] * joint.sum(1)[:, None]
    squares = np.divide(joint**2, expected, where=expected > 0, out=np.zeros_like(joint)).sum((1, 2))
    degrees = np.minimum((joint.sum(2) > 0).sum(1), (joint.sum(1) > 0).sum(1)) - 1
    return np.sqrt(np.divide(squares - 1, degrees, where=degrees > 0, out=np.zeros(len(joint))).clip(0, 1))


def _normalised(weights: Floats) -> Floats:
    """Weights (B, n) that sum to 1."""
    return weights / weights.sum(1, keepdims=True)
