"""Intervals by half-samples: the replicate weights that every metric of a leaderboard shares, and what they say.

A bootstrap repeats rows, and a repeated row is its own nearest neighbour and narrows a covariance. Half-samples
drawn *without* replacement repeat nothing, and the half-sample mean varies about the full mean exactly as the full
mean varies about the truth: the delete-half jackknife (Shao & Wu 1989, https://doi.org/10.1214/aos/1176347263),
stratified as in McCarthy (1969, https://doi.org/10.2307/1402116).

What cannot be computed is `Missing`, which says why and is written in its place. The value of a half-sample that keeps
too few rows is NaN: a few such are left out, and where they are more the score has a value and no interval.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.missing import Missing, Written

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

LEVEL = 0.95
SHARE = (0.0, 1.0)  # bounds of an estimate that is a share
SPARED = 0.05  # of the half-samples, at most, may give no value for an interval
FEWEST = 2  # rows of which anything is scored
SCORED = "test rows with every modality in each half of the sources"  # which may be too few


Score = Floats | Missing  # (1 + B,): the full sample, then its half-samples
Scores = dict[str, Score]  # by name


def combined(function: Callable[..., Floats], *scores: Score) -> Score:
    """What a function makes of the scores' values; the first that is missing where one is."""
    for score in scores:
        if isinstance(score, Missing):
            return score
    with np.errstate(divide="ignore", invalid="ignore"):
        return function(*scores)


def mean_of(scores: Sequence[Score]) -> Score:
    """The mean of scores, of all or none."""
    return combined(lambda *values: np.asarray(np.mean(values, axis=0)), *scores)


def too_few(rows: int, needed: int, of: str) -> Missing | None:
    """Missing where there are fewer rows than are needed; `of` says which rows.

    >>> too_few(1, 2, "test rows with every modality").why
    '2 test rows with every modality are needed, 1 is there'
    """
    if rows >= needed:
        return None
    there = "1 is" if rows == 1 else f"{rows} are"
    return Missing(f"{needed} {of} are needed, {there} there" if rows else f"there are no {of}")


def unscored(rows: int) -> Missing | None:
    """Missing where so few test rows are complete that nothing is scored."""
    return too_few(rows, FEWEST, SCORED)


def half_samples(
    groups: Ints, resamples: int, rng: np.random.Generator, strata: Ints | None = None
) -> NDArray[np.float64]:
    """Weights (1 + resamples, N): all ones first (the full sample), then a half-sample of whole groups a line.

    Of the n groups of a stratum m are kept and weigh n/m each, the others 0: every stratum keeps its share. An even
    n keeps m = n/2. An odd n keeps (n − 1)/2 with probability (n − 1)/2n and (n + 1)/2 otherwise, so that the
    variance (n − m)/nm of a mean is 1/n, the exact one; a lone group is always kept.

    Shapes: groups (N,) is the source of each row; strata (N,) a label each (a group counts where most of its rows are).
    """
    names, codes = np.unique(groups, return_inverse=True)
    source_strata = _majority(codes, len(names), np.zeros(len(codes), int) if strata is None else strata)
    taken = np.zeros((resamples, len(names)))
    for stratum in np.unique(source_strata):
        members = np.flatnonzero(source_strata == stratum)
        n = len(members)
        kept = np.where(rng.random(resamples) < (n - 1) / (2 * n), n // 2, (n + 1) // 2)
        ranks = rng.random((resamples, n)).argsort(1).argsort(1)
        taken[:, members] = (ranks < kept[:, None]) * (n / kept)[:, None]
    return np.concatenate([np.ones((1, len(codes))), taken[:, codes]])


def halves(groups: Ints, strata: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Two sets of rows, disjoint in groups, each with half of every stratum's groups, shuffled and of equal length.

    The odd group of a stratum goes to the half that is behind; the longer half then loses rows at random.
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
    """The value of a score (1 + B,) and its 95 % interval: value + quantiles of (half-sample − mean half-sample).

    Centring on the mean half-sample removes the bias that half the rows bring (a Frechet distance grows as 1/N).
    A value that is missing is None, and so are the ends of an interval that is; `why` gives the reason.
    """
    if isinstance(values, Missing):
        return values.written
    value = float(values[0])
    if not math.isfinite(value):
        return Missing("it has no finite value in these rows").written
    halves = replicates(values)
    if halves is None:
        return {"value": value, "low": None, "high": None, "why": "too few rows for an interval"}
    spread = np.quantile(halves - halves.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.clip(value + spread, *bounds).tolist()
    return {"value": value, "low": min(low, value), "high": max(high, value)}  # rounding may leave it outside


def replicates(values: Floats) -> Floats | None:
    """Of values (1 + B,) the half-samples', without the few that are NaN; None if these are many, or some infinite."""
    known: Floats = values[1:][~np.isnan(values[1:])]
    enough = len(known) >= (1 - SPARED) * (len(values) - 1) and bool(np.isfinite(known).all())
    return known if enough else None


def gap_closed(density: Score, normal: Score, reconstruction: Score) -> float | Missing:
    """(density − normal) / (reconstruction − normal), paired by half-sample; missing where it lies inside its noise."""
    gap = estimate(combined(np.subtract, reconstruction, normal))
    own = estimate(combined(np.subtract, density, normal))
    for needed, of in (("low", gap), ("value", own)):
        if of.get(needed) is None:
            return Missing(of["why"])
    if gap["low"] <= 0 <= gap["high"]:
        return Missing("it lies inside the noise")
    return float(own["value"] / gap["value"]) + 0.0  # no −0.0


def weighted_mean(values: NDArray[Any], weights: Floats) -> NDArray[np.float64]:
    """Σ_n w_bn v_n / Σ_n w_bn, NaN where no row has weight. Shapes: values (N, …), weights (B, N); answer (B, …)."""
    total = np.tensordot(weights, values.astype(np.float64), axes=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return total / weights.sum(1).reshape(-1, *[1] * (values.ndim - 1))


def correlation(x: Floats, y: Floats, weights: Floats) -> NDArray[np.float64]:
    """Weighted correlations (B, K) of columns; 0 where one is constant. Shapes: x and y (N, K), weights (B, N)."""
    mean_x, mean_y = weighted_mean(x, weights), weighted_mean(y, weights)
    covariance = weighted_mean(x * y, weights) - mean_x * mean_y
    square_x, square_y = weighted_mean(x**2, weights), weighted_mean(y**2, weights)
    variance = (square_x - mean_x**2).clip(0) * (square_y - mean_y**2).clip(0)
    varies = variance > 1e-20 * square_x * square_y  # less is rounding
    return np.divide(covariance, np.sqrt(variance), where=varies, out=np.zeros_like(covariance)).clip(-1, 1)


def weighted_auc(positive: Floats, negative: Floats, of_positive: Floats, of_negative: Floats) -> NDArray[np.float64]:
    """The chance (B,) that a positive score exceeds a negative one, ties as half (Mann & Whitney 1947).

    NaN where one side weighs nothing. Shapes: scores (N,) and (N',), their weights (B, N) and (B, N').

    >>> weighted_auc(np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.ones((1, 2)), np.ones((1, 2))).tolist()
    [0.875]
    """
    order = np.argsort(negative, kind="stable")
    below = np.pad(np.cumsum(of_negative[:, order], axis=1), ((0, 0), (1, 0)))  # (B, N' + 1)
    places = [np.searchsorted(negative[order], positive, side) for side in ("left", "right")]
    beaten = (below[:, places[0]] + below[:, places[1]]) / 2  # (B, N)
    pairs = of_positive.sum(1) * below[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pairs > 0, (of_positive * beaten).sum(1) / pairs, np.nan)


def _majority(codes: Ints, sources: int, strata: Ints) -> Ints:
    """The commonest stratum (G,) among the rows of each group, numbered 0 … G − 1."""
    names, of_row = np.unique(strata, return_inverse=True)
    counts = np.zeros((sources, len(names)), int)
    np.add.at(counts, (codes, of_row), 1)
    return counts.argmax(1) if sources else np.zeros(0, int)
