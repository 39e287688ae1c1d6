"""Scores of imputation: draws of what was hidden, set against what stood there.

- energy score (Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437, eq. 22): E‖X − y‖ − ½ E‖X − X′‖,
  lower is better, and least in expectation for draws X of the true law. For one number it is the CRPS.
- coverage: the share of values within the central interval of the draws. Of R exchangeable draws, the k-th smallest and
  the k-th greatest hold a further one between them with probability (R + 1 − 2k) / (R + 1), whatever the law.
"""

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import SHARE, Floats, combined, estimate, weighted_mean
from postprior.pipelines.metrics.statistics.missing import Missing, Written
from postprior.stage1_vae.modalities import Modality

RowScores = dict[str, Floats] | Missing
"""Scores by name, (N, M) each: of what N rows lost of M modalities, NaN where they lost nothing."""
SCORES = ("energy_score", "rmse", "coverage")
LEVEL = 0.9  # of the intervals
ROWS = 128  # rows whose pairs of draws are measured at a time
NOTHING = {  # why no row has a score
    "energy_score": Missing("nothing was hidden"),
    "rmse": Missing("nothing was hidden"),
    "coverage": Missing("no number was hidden, only counts and classes"),
    "label_agreement": Missing("no modality was hidden"),
}


def energy_score(draws: Floats, truth: Floats) -> Floats:
    """The energy score of R ≥ 2 draws of each row, (n,): unbiased for that of the law they are drawn from.

    Shapes: draws (R, n, F), truth (n, F). Draws that are all one guess have its distance to the truth.

    >>> energy_score(np.array([[[0.0]], [[2.0]]]), np.array([[1.0]])).tolist()
    [0.0]
    """
    R = len(draws)
    near = np.linalg.norm(draws - truth, axis=-1).mean(0, dtype=np.float64)
    apart = np.empty(len(truth))
    for start in range(0, len(truth), ROWS):
        x = draws[:, start : start + ROWS].swapaxes(0, 1)  # (n, R, F)
        squares = np.square(x, dtype=np.float64).sum(-1)
        gram = np.einsum("nrf,nsf->nrs", x, x, optimize=True, dtype=np.float64)
        squared = squares[:, :, None] + squares[:, None] - 2 * gram
        apart[start : start + ROWS] = np.sqrt(np.maximum(squared, 0)).sum((1, 2)) / (R * (R - 1))
    return near - apart / 2


def continuous(modality: Modality) -> NDArray[np.bool_]:
    """Which values of a modality are no counts or classes: (J,) for the columns of a table, () for others."""
    of = [each.likelihood in ("normal", "laplace") for each in modality.columns or (modality,)]
    return np.array(of if modality.columns else of[0])


def interval(draws: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """The central interval of R draws (R, …), from the k-th smallest to the k-th greatest, whose level is the nearest.

    ValueError for too few draws.
    """
    R = len(draws)
    k = round((R + 1) * (1 - level) / 2)
    if k < 1:
        least = round(2 / (1 - level)) - 1
        raise ValueError(f"draws: found {R}, expected {least} at least for intervals of {level:.0%}")
    ordered = np.partition(draws, (k - 1, R - k), 0)
    return ordered[k - 1], ordered[R - k]


def covered(draws: Floats, truth: Floats, level: float = LEVEL) -> NDArray[np.bool_]:
    """Whether each number (n, F) lies within the interval of its draws (R, n, F)."""
    low, high = interval(draws, level)
    return np.asarray((truth >= low) & (truth <= high))


def compared(found: RowScores, theirs: RowScores, weights: Floats) -> dict[str, Written]:
    """The paired difference of energy scores, below 0 where ours is better, and the ratio of errors."""
    if isinstance(found, Missing) or isinstance(theirs, Missing):
        why = found if isinstance(found, Missing) else theirs
        assert isinstance(why, Missing)
        return dict.fromkeys(("energy_score", "rmse_ratio"), why.written)
    rows = np.flatnonzero(np.isfinite(by_row(found["energy_score"])))
    ours, other = (
        {key: weighted_mean(by_row(of[key])[rows], weights[:, rows]) for key in ("energy_score", "rmse")}
        for of in (found, theirs)
    )
    ratio = combined(lambda x, y: np.sqrt(x / y), ours["rmse"], other["rmse"])
    exact = Missing("the other imputer makes no error")
    return {
        "energy_score": estimate(ours["energy_score"] - other["energy_score"]),
        "rmse_ratio": estimate(ratio if other["rmse"][0] > 0 else exact, (0, np.inf)),
    }


def by_row(values: Floats) -> Floats:
    """The mean over the modalities of which a row lost something, (N,); NaN where it lost none."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(1) / there.sum(1)


def estimated(values: Floats, weights: Floats, key: str) -> Written:
    """The mean (N,) over rows that have one; the root of it for errors; missing where no row has."""
    rows = np.flatnonzero(np.isfinite(values))
    if not len(rows):
        return NOTHING[key].written
    means = weighted_mean(values[rows], weights[:, rows])
    return estimate(np.sqrt(means) if key == "rmse" else means, SHARE if key == "coverage" else (-np.inf, np.inf))
