"""Fidelity of tables: distributions of single columns and associations of pairs of columns, over observed cells.

    marginal similarity = mean over columns of 1 − sup |F − G| (Kolmogorov–Smirnov), or 1 − ½ Σ |p − q| for classes
    correlation similarity = mean over pairs of columns of 1 − |ρ − ρ′| / 2 for Pearson correlations of two numbers,
        1 − |η − η′| for correlation ratios of a number and a class, 1 − |V − V′| for Cramér's V of two classes

as the Synthetic Data Vault scores tables (Patki et al. 2016, https://doi.org/10.1109/DSAA.2016.49). For the marginal
similarity a Bernoulli column is a class, and a value between 0 and 1 counts as that share of a row; for the correlation
similarity it is a number. A table of more than 45 columns is scored by about `MOST` of its pairs. Both means are over
columns and pairs with two observed rows in every half-sample. If there are none, they are over those with two observed
rows, and have no value in half-samples with fewer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    Floats,
    Score,
    Scores,
    correlation,
    mean_of,
    too_few,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.texts import escape_controls
from postprior.stage1_vae.modalities import Column, Modality

MOST = 1000  # maximum number of pairs of columns whose associations are compared
NO_COLUMN = Missing("no column has two observed rows in both sets")
NO_PAIR = Missing("no pair of columns has two observed rows in both sets")
CLASSES = ("categorical", "bernoulli")  # likelihoods of columns whose marginals are class probabilities


@dataclass(frozen=True)
class Cells:
    """One column of N rows: its n observed values (n,), and in which rows it is observed (N,)."""

    column: Column
    values: Floats
    observed: NDArray[np.bool_]

    @property
    def shares(self) -> Floats:
        """The share of each observed row that belongs to each class, (n, K)."""
        if self.column.likelihood == "bernoulli":
            return np.stack([1 - self.values, self.values], axis=1)
        return np.eye(self.column.classes or 1)[self.values.astype(int)]

    def sufficient(self, weights: Floats) -> NDArray[np.bool_]:
        """Return which half-samples (B,) of weights (B, N) keep at least two observed rows."""
        return np.asarray((weights[:, self.observed] > 0).sum(1) >= FEWEST)

    def where(self, rows: NDArray[np.bool_]) -> "Cells":
        """Return the cells of rows (N,) in which the column is observed."""
        return Cells(self.column, self.values[rows[self.observed]], rows)


Sides = tuple[Cells, Cells]  # a column in real and in fake rows


def table_scores(real: Dataset, real_weights: Floats, fake: Dataset, fake_weights: Floats) -> Scores:
    """Return both similarities of every table as "<score>/<modality>", with weights (1 + B, N) and (1 + B, N').

    A table with one column has no correlation similarity.
    """
    scores: Scores = {}
    for modality, real_columns, fake_columns in _tables(real, fake):
        sides = [*zip(real_columns, fake_columns, strict=True)], real_weights, fake_weights
        scores[f"marginal_similarity/{modality.name}"] = _mean(_marginals(*sides), NO_COLUMN)
        if len(modality.columns) > 1:
            scores[f"correlation_similarity/{modality.name}"] = _mean(_correlations(*sides), NO_PAIR)
    return scores


def column_tests(real: Dataset, fake: Dataset) -> dict[str, dict[str, dict[str, Any]]]:
    """Test whether real and fake values of each column have the same distribution; return test, statistic and p-value.

    Results are keyed by modality and column. The tests assume independent rows: if several rows have the same source,
    p-values are too small. A column that is observed in fewer than two rows of either set is missing.
    """

    def test(x: Cells, y: Cells) -> dict[str, Any]:
        from scipy.stats import chi2_contingency, ks_2samp  # here, because it takes a second and few data have tables

        rows, side = min((len(x.values), "real"), (len(y.values), "synthetic"))
        if missing := too_few(rows, FEWEST, f"{side} rows with this column"):
            return missing.written
        if x.column.likelihood not in CLASSES:
            name, result = "ks", ks_2samp(x.values, y.values, method="asymp")
        else:
            counts = np.stack([cells.shares.sum(0) for cells in (x, y)])
            name, result = "chi_square", chi2_contingency(counts[:, counts.sum(0) > 0], correction=False)
        return {"test": name, "statistic": float(result.statistic), "p_value": float(result.pvalue)}

    return {
        modality.name: {x.column.name: test(x, y) for x, y in zip(real_columns, fake_columns, strict=True)}
        for modality, real_columns, fake_columns in _tables(real, fake)
    }


def add_column_tests(written: dict[str, Any], real: Dataset, fake: Dataset) -> None:
    """Add the tests of every table's columns to a row as stored.

    DVC takes a key `error` for a failure, and prints keys to terminals.
    """
    for modality, columns in column_tests(real, fake).items():
        keys = {name: "error (column)" if name == "error" else escape_controls(name) for name in columns}
        written["modalities"][modality]["columns"] = {keys[name]: test for name, test in columns.items()}


def _tables(real: Dataset, fake: Dataset) -> Iterator[tuple[Modality, list[Cells], list[Cells]]]:
    """Yield every table with the cells of its columns in both sets."""
    for modality in real.modalities:
        if modality.kind == "table":
            yield modality, _columns(real, modality), _columns(fake, modality)


def _columns(dataset: Dataset, table: Modality) -> list[Cells]:
    """Return the observed cells of every column of a table."""
    values, observed = np.asarray(dataset.data[table.name], np.float64), ~dataset.missing(table.name)
    columns = zip(table.columns, values.T, observed.T, strict=True)
    return [Cells(column, cells[present], present) for column, cells, present in columns]


def _mean(values: Iterable[Floats], none: Missing) -> Score:
    """Return the mean of the values (1 + B,) without NaN; of all if each has some; `none` if there are none."""
    every = [*values]
    return mean_of([value for value in every if np.isfinite(value).all()] or every) if every else none


def _marginals(columns: list[Sides], real_weights: Floats, fake_weights: Floats) -> Iterator[Floats]:
    """Yield 1 − the distance (B,) between the distributions of every column; NaN in half-samples with too few rows."""
    for x, y in columns:
        lines = x.sufficient(real_weights) & y.sufficient(fake_weights)
        if lines[0]:
            yield _placed(_marginal(x, y, real_weights[lines], fake_weights[lines]), lines)


def _placed(values: Floats, lines: NDArray[np.bool_]) -> Floats:
    """Return an array (B,) with these values in these lines, and NaN in the others."""
    placed = np.full(len(lines), np.nan)
    placed[lines] = values
    return placed


def _marginal(x: Cells, y: Cells, real_weights: Floats, fake_weights: Floats) -> Floats:
    """Return 1 − the distance (B,) between the two distributions of a column."""
    w, v = real_weights[:, x.observed], fake_weights[:, y.observed]
    if x.column.likelihood in CLASSES:
        return 1 - np.abs(weighted_mean(x.shares, w) - weighted_mean(y.shares, v)).sum(1) / 2
    values = np.concatenate([x.values, y.values])
    order = values.argsort()
    steps = np.concatenate([_normalised(w), -_normalised(v)], axis=1)[:, order]
    last = np.append(np.diff(values[order]) > 0, True)  # the last of equal values
    return 1 - np.abs(steps.cumsum(1)[:, last]).max(1)


def _correlations(columns: list[Sides], real_weights: Floats, fake_weights: Floats) -> Iterator[Floats]:
    """Yield 1 − the difference (B,) between real and fake rows in the association of every pair of columns."""
    for left, right in ((columns[m], columns[n]) for m, n in pairs_of_columns(len(columns))):
        sets = [
            (x.where(x.observed & y.observed), y.where(x.observed & y.observed), weights)
            for x, y, weights in zip(left, right, (real_weights, fake_weights), strict=True)
        ]
        lines = np.all([x.sufficient(weights) for x, _, weights in sets], axis=0)
        if lines[0]:
            real, fake = (_association(x, y, weights[lines][:, x.observed]) for x, y, weights in sets)
            numbers = all(x.column.likelihood != "categorical" for x in (left[0], right[0]))
            yield _placed(1 - np.abs(real - fake) / (2 if numbers else 1), lines)


def pairs_of_columns(columns: int) -> Iterable[tuple[int, int]]:
    """Return all pairs of columns, or about `MOST` of them, drawn at random but the same for every set of rows."""
    if columns * (columns - 1) // 2 <= MOST:
        return combinations(range(columns), 2)
    drawn = np.sort(np.random.default_rng(0).integers(0, columns, (2 * MOST, 2)), axis=1)
    different = drawn[drawn[:, 0] < drawn[:, 1]][:MOST]
    return [(m, n) for m, n in np.unique(different, axis=0).tolist()]


def _association(x: Cells, y: Cells, weights: Floats) -> Floats:
    """Return the association (B,) of two columns of the same n rows; 0 if one is constant. Weights (B, n)."""
    classes = [cells for cells in (x, y) if cells.column.likelihood == "categorical"]
    numbers = [cells.values - cells.values.mean() for cells in (x, y) if cells.column.likelihood != "categorical"]
    if not numbers:
        return cramers_v(x.shares, y.shares, weights)
    if classes:
        return correlation_ratio(numbers[0], classes[0].shares, weights)
    return correlation(numbers[0][:, None], numbers[1][:, None], weights)[:, 0]


def correlation_ratio(values: Floats, classes: Floats, weights: Floats) -> Floats:
    """Return η (B,), the root of the between-class share of the variance.

    Shapes: values (n,), one-hot classes (n, K), weights (B, n).
    """
    x = values - values.mean()
    share, total = weighted_mean(classes, weights), weighted_mean(classes * x[:, None], weights)  # (B, K)
    mean = total.sum(1)
    between = np.divide(total**2, share, where=share > 0, out=np.zeros_like(share)).sum(1) - mean**2
    square = weighted_mean(x**2, weights)
    variance = square - mean**2
    varies = variance > 1e-12 * square  # less is rounding
    return np.sqrt(np.divide(between, variance, where=varies, out=np.zeros_like(mean)).clip(0, 1))


def cramers_v(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return Cramér's V (B,), the root of χ² / n over its maximum for the classes that occur.

    Shapes: one-hot classes (n, K) and (n, L), weights (B, n).
    """
    joint = np.stack([(x * line[:, None]).T @ y for line in _normalised(weights)])  # (B, K, L)
    expected = joint.sum(2)[:, :, None] * joint.sum(1)[:, None]
    squares = np.divide(joint**2, expected, where=expected > 0, out=np.zeros_like(joint)).sum((1, 2))
    degrees = np.minimum((joint.sum(2) > 0).sum(1), (joint.sum(1) > 0).sum(1)) - 1
    return np.sqrt(np.divide(squares - 1, degrees, where=degrees > 0, out=np.zeros(len(joint))).clip(0, 1))


def _normalised(weights: Floats) -> Floats:
    """Return weights (B, n) scaled to sum to 1 per line."""
    return weights / weights.sum(1, keepdims=True)
