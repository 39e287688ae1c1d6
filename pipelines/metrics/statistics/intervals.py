"""Confidence intervals from half-samples: replicate weights that all metrics of a leaderboard share.

A bootstrap repeats rows; a repeated row is its own nearest neighbour and makes a covariance too small. Half-samples are
drawn *without* replacement, so they repeat nothing. The mean of a half-sample varies about the mean of the full sample
exactly as the full mean varies about the true mean: this is the delete-half jackknife (Shao & Wu 1989,
https://doi.org/10.1214/aos/1176347263), stratified as in McCarthy (1969, https://doi.org/10.2307/1402116).

A score that cannot be computed is `Missing`, which holds the reason. A score is NaN in a half-sample that keeps too few
rows. The interval leaves out a few such half-samples; if there are more, the score has a value and no interval.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.missing import Missing, Written

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

LEVEL = 0.95  # of the intervals
SHARE = (0.0, 1.0)  # bounds of an estimate that is a share
SPARED = 0.05  # largest share of half-samples without a value for which an interval is still given
FEWEST = 2  # rows that a score needs
SCORED = "test rows in each half of the sources"  # the rows that are scored, for messages
PAIRED = "test rows with two modalities in each half of the sources"  # the rows that can be coherent
ENOUGH = 8  # rows of which nearly all half-samples keep two


Score = Floats | Missing  # (1 + B,): the full sample, then B half-samples
Scores = dict[str, Score]  # by name


def combined(function: Callable[..., Floats], *scores: Score) -> Score:
    """Return `function` of the scores' values, or the first missing score if there is one."""
    for score in scores:
        if isinstance(score, Missing):
            return score
    with np.errstate(divide="ignore", invalid="ignore"):
        return function(*scores)


def mean_of(scores: Sequence[Score]) -> Score:
    """Return the mean of scores; missing if one of them is."""
    return combined(lambda *values: np.asarray(np.mean(values, axis=0)), *scores)


def mean_of_present(scores: Sequence[Score]) -> Score:
    """Return the mean of the scores that are not missing; missing if all are."""
    return mean_of([score for score in scores if not isinstance(score, Missing)] or scores)


def too_few(rows: int, needed: int, noun: str) -> Missing | None:
    """Return `Missing` if there are fewer rows than needed; `noun` describes the rows in the message.

    >>> too_few(1, 2, "complete test rows").why
    'at least 2 complete test rows are needed, found 1'
    """
    if rows >= needed:
        return None
    return Missing(f"at least {needed} {noun} are needed, found {rows}" if rows else f"there are no {noun}")


def unscored(rows: int) -> Missing | None:
    """Return `Missing` if there are too few test rows to score."""
    return too_few(rows, FEWEST, SCORED)


def well_observed(rows: Ints) -> NDArray[np.bool_]:
    """Return which modalities (M,) a mean over modalities contains, given the number of rows (M,) that have each.

    They are those with enough rows for an interval; if there are none, those with enough rows for a value; else all.

    >>> well_observed(np.array([30, 9, 3])).tolist()
    [True, True, False]
    """
    return next((rows >= least for least in (ENOUGH, FEWEST) if (rows >= least).any()), rows >= 0)


def half_samples(
    groups: Ints, resamples: int, rng: np.random.Generator, strata: Ints | None = None
) -> NDArray[np.float64]:
    """Draw weights (1 + resamples, N): line 0 is all ones (the full sample), every other a half-sample of whole groups.

    A half-sample keeps m of the n groups of a stratum. These have weight n/m, all others 0: every stratum keeps its
    share. If n is even, m = n/2. If n is odd, m is (n − 1)/2 with probability (n − 1)/2n and (n + 1)/2 otherwise, so
    that the factor (n − m)/nm in the variance of a mean is 1/n in expectation, the exact value.

    Shapes: groups (N,), the source of each row; strata (N,), the label of each row. A group belongs to the stratum of
    most of its rows. A stratum of one group has no half, and would count as known without error: all such strata form
    one, and one alone joins the smallest other stratum.
    """
    names, codes = np.unique(groups, return_inverse=True)
    source_strata = _collapsed(_majority(codes, len(names), np.zeros(len(codes), int) if strata is None else strata))
    taken = np.zeros((resamples, len(names)))
    for stratum in np.unique(source_strata):
        members = np.flatnonzero(source_strata == stratum)
        n = len(members)
        kept = np.where(rng.random(resamples) < (n - 1) / (2 * n), n // 2, (n + 1) // 2)
        ranks = rng.random((resamples, n)).argsort(1).argsort(1)
        taken[:, members] = (ranks < kept[:, None]) * (n / kept)[:, None]
    return np.concatenate([np.ones((1, len(codes))), taken[:, codes]])


def halves(groups: Ints, strata: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Split rows into two shuffled halves of equal length and disjoint groups, each with half of every stratum.

    If a stratum has an odd number of groups, the smaller half gets the extra one. At the end, the longer half loses
    rows at random.
    """
    names, codes = np.unique(groups, return_inverse=True)
    sources = len(names)
    source_strata, sizes = _majority(codes, sources, strata), np.bincount(codes, minlength=sources)
    second, behind = np.zeros(sources, bool), 0
    for stratum in np.unique(source_strata):
        members = rng.permutation(np.flatnonzero(source_strata == stratum))
        chosen = members[behind > 0 :: 2] if behind else members[1::2]
        second[chosen] = True
        behind += int(sizes[chosen].sum() - sizes[np.setdiff1d(members, chosen)].sum())
    rows = [rng.permutation(np.flatnonzero(second[codes] == side)) for side in (False, True)]
    length = min(map(len, rows))
    return rows[0][:length], rows[1][:length]


def estimate(values: Score, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Written:
    """Return the value of a score (1 + B,) and its 95 % interval: quantiles of half-samples − their mean + value.

    Subtracting the mean half-sample removes the bias of half as many rows (that of a Frechet distance grows as 1/N).
    A missing value is None, and so are the bounds of a missing interval; `why` then gives the reason.
    """
    if isinstance(values, Missing):
        return values.written
    value = float(values[0])
    if not math.isfinite(value):
        return Missing("the score is not finite for these rows").written
    halves = replicates(values)
    if halves is None:
        return {"value": value, "low": None, "high": None, "why": "too few rows for an interval"}
    spread = np.quantile(halves - halves.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.clip(value + spread, *bounds).tolist()
    return {"value": value, "low": min(low, value), "high": max(high, value)}  # rounding may leave it outside


def replicates(values: Floats) -> Floats | None:
    """Return the half-samples of values (1 + B,) without NaN; None if more than `SPARED` are, or if one is infinite."""
    numbers: Floats = values[1:][~np.isnan(values[1:])]
    enough = len(numbers) >= (1 - SPARED) * (len(values) - 1) and bool(np.isfinite(numbers).all())
    return numbers if enough else None


def gap_closed(density: Score, normal: Score, reconstruction: Score) -> float | Missing:
    """Return (density − normal) / (reconstruction − normal); missing if the denominator's interval contains 0.

    Differences are paired by half-sample.
    """
    gap = estimate(combined(np.subtract, reconstruction, normal))
    closed = estimate(combined(np.subtract, density, normal))
    for needed, difference in (("low", gap), ("value", closed)):
        if difference.get(needed) is None:
            return Missing(difference["why"])
    if gap["low"] <= 0 <= gap["high"]:
        return Missing("the confidence interval of the gap contains 0")
    return float(closed["value"] / gap["value"]) + 0.0  # no −0.0


def weighted_mean(values: NDArray[Any], weights: Floats) -> NDArray[np.float64]:
    """Return Σ_n w_bn v_n / Σ_n w_bn (B, …); NaN if no row has weight. Shapes: values (N, …), weights (B, N)."""
    total = np.tensordot(weights, values.astype(np.float64), axes=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return total / weights.sum(1).reshape(-1, *[1] * (values.ndim - 1))


def correlation(x: Floats, y: Floats, weights: Floats) -> NDArray[np.float64]:
    """Return weighted correlations (B, K) of columns of x and y (N, K); 0 if a column is constant. Weights (B, N)."""
    mean_x, mean_y = weighted_mean(x, weights), weighted_mean(y, weights)
    covariance = weighted_mean(x * y, weights) - mean_x * mean_y
    square_x, square_y = weighted_mean(x**2, weights), weighted_mean(y**2, weights)
    variance = (square_x - mean_x**2).clip(0) * (square_y - mean_y**2).clip(0)
    varies = variance > 1e-20 * square_x * square_y  # less is rounding
    return np.divide(covariance, np.sqrt(variance), where=varies, out=np.zeros_like(covariance)).clip(-1, 1)


def weighted_auc(
    positive: Floats, negative: Floats, positive_weights: Floats, negative_weights: Floats
) -> NDArray[np.float64]:
    """Return the probability (B,) that a positive score exceeds a negative one; ties count half (Mann & Whitney 1947).

    NaN if the weights of one side sum to 0. Shapes: scores (N,) and (N',), weights (B, N) and (B, N').

    >>> weighted_auc(np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.ones((1, 2)), np.ones((1, 2))).tolist()
    [0.875]
    """
    order = np.argsort(negative, kind="stable")
    below = np.pad(np.cumsum(negative_weights[:, order], axis=1), ((0, 0), (1, 0)))  # (B, N' + 1)
    places = [np.searchsorted(negative[order], positive, side) for side in ("left", "right")]
    beaten = (below[:, places[0]] + below[:, places[1]]) / 2  # (B, N)
    pairs = positive_weights.sum(1) * below[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pairs > 0, (positive_weights * beaten).sum(1) / pairs, np.nan)


def _collapsed(strata: Ints) -> Ints:
    """Return strata (G,) in which those of one group form one, and one alone belongs to the smallest other stratum."""
    sizes = np.bincount(strata)
    single, larger = np.flatnonzero(sizes == 1), np.flatnonzero(sizes > 1)
    if not len(single):
        return strata
    joined = larger[sizes[larger].argmin()] if len(single) == 1 and len(larger) else single[0]
    return np.where(sizes[strata] == 1, joined, strata)


def _majority(codes: Ints, sources: int, strata: Ints) -> Ints:
    """Return the most common stratum (G,) among the rows of each group, numbered 0 … G − 1."""
    names, row_strata = np.unique(strata, return_inverse=True)
    counts = np.zeros((sources, len(names)), int)
    np.add.at(counts, (codes, row_strata), 1)
    return counts.argmax(1) if sources else np.zeros(0, int)
