"""Scores of imputation: draws of hidden values compared with the true values.

- energy score (Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437, eq. 22): E‖X − y‖ − ½ E‖X − X′‖ for
  draws X, X′ and truth y. Lower is better; its expectation is smallest if draws have the true distribution. For one
  number it is the CRPS.
- coverage: the share of values inside the central interval of the draws. Of R exchangeable draws, the k-th smallest and
  the k-th largest contain a further one between them with probability (R + 1 − 2k) / (R + 1), for any distribution.
"""

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import SHARE, Floats, combined, estimate, weighted_mean
from postprior.pipelines.metrics.statistics.missing import Missing, Written
from postprior.stage1_vae.modalities import Modality

RowScores = dict[str, Floats] | Missing
"""Scores by name, each (N, M), of the hidden values of N rows in M modalities; NaN if nothing was hidden."""
SCORES = ("energy_score", "rmse", "coverage")
LEVEL = 0.9  # of the intervals
ROWS = 128  # rows per block for distances between draws
NOTHING = {  # reasons why no row has a score
    "energy_score": Missing("nothing was hidden"),
    "rmse": Missing("nothing was hidden"),
    "coverage": Missing("no number was hidden, only counts and classes"),
    "label_agreement": Missing("no modality of a row with a label was hidden"),
}


def energy_score(draws: Floats, truth: Floats) -> Floats:
    """Return the energy score (n,) of R ≥ 2 draws per row, an unbiased estimate for the distribution of the draws.

    Shapes: draws (R, n, F), truth (n, F). If all draws are equal, the score is their distance to the truth.

    >>> energy_score(np.array([[[0.0]], [[2.0]]]), np.array([[1.0]])).tolist()
    [0.0]
    """
    R = len(draws)
    errors = np.linalg.norm(draws - truth, axis=-1).mean(0, dtype=np.float64)
    spread = np.empty(len(truth))
    for start in range(0, len(truth), ROWS):
        x = draws[:, start : start + ROWS].swapaxes(0, 1)  # (n, R, F)
        squares = np.square(x, dtype=np.float64).sum(-1)
        gram = np.einsum("nrf,nsf->nrs", x, x, optimize=True, dtype=np.float64)
        squared = squares[:, :, None] + squares[:, None] - 2 * gram
        spread[start : start + ROWS] = np.sqrt(np.maximum(squared, 0)).sum((1, 2)) / (R * (R - 1))
    return errors - spread / 2


def continuous(modality: Modality) -> NDArray[np.bool_]:
    """Return which values of a modality are continuous, not counts or classes: (J,) for a table's columns, else ()."""
    flags = [part.likelihood in ("normal", "laplace") for part in modality.columns or (modality,)]
    return np.array(flags if modality.columns else flags[0])


def interval(draws: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return the central interval of R draws (R, …), from the k-th smallest to the k-th largest draw.

    k is chosen such that the level of the interval is closest to `level`. Raises ValueError if there are too few draws.
    """
    R = len(draws)
    k = round((R + 1) * (1 - level) / 2)
    if k < 1:
        least = round(2 / (1 - level)) - 1
        raise ValueError(f"draws: found {R}, expected at least {least} for {level:.0%} intervals")
    ordered = np.sort(np.ascontiguousarray(np.moveaxis(draws, 0, -1)))  # faster than along the first axis
    return ordered[..., k - 1], ordered[..., R - k]


def covered(draws: Floats, truth: Floats, level: float = LEVEL) -> NDArray[np.bool_]:
    """Return whether each value (n, F) is inside the interval of its draws (R, n, F)."""
    low, high = interval(draws, level)
    return np.asarray((truth >= low) & (truth <= high))


def compared(scores: RowScores, baseline: RowScores, weights: Floats) -> dict[str, Written]:
    """Return the paired difference of energy scores, negative if better than the baseline, and the ratio of RMSEs."""
    if isinstance(scores, Missing) or isinstance(baseline, Missing):
        missing = scores if isinstance(scores, Missing) else baseline
        assert isinstance(missing, Missing)
        return dict.fromkeys(("energy_score", "rmse_ratio"), missing.written)
    rows = np.flatnonzero(np.isfinite(by_row(scores["energy_score"])))
    means, baseline_means = (
        {key: weighted_mean(by_row(values[key])[rows], weights[:, rows]) for key in ("energy_score", "rmse")}
        for values in (scores, baseline)
    )
    ratio = combined(lambda x, y: np.sqrt(x / y), means["rmse"], baseline_means["rmse"])
    exact = Missing("the baseline imputer makes no error")
    return {
        "energy_score": estimate(means["energy_score"] - baseline_means["energy_score"]),
        "rmse_ratio": estimate(ratio if baseline_means["rmse"][0] > 0 else exact, (0, np.inf)),
    }


def by_row(values: Floats) -> Floats:
    """Return the mean (N,) over the modalities in which a row has hidden values; NaN if it has none."""
    scored = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(scored, values, 0).sum(1) / scored.sum(1)


def estimated(values: Floats, weights: Floats, key: str) -> Written:
    """Estimate the mean of values (N,) over rows with a value, its root for `rmse`; missing if no row has a value."""
    rows = np.flatnonzero(np.isfinite(values))
    if not len(rows):
        return NOTHING[key].written
    means = weighted_mean(values[rows], weights[:, rows])
    return estimate(np.sqrt(means) if key == "rmse" else means, SHARE if key == "coverage" else (-np.inf, np.inf))
