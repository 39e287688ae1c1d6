"""What is rare among normal rows: surprisals of statistics on one scale, conformal p-values, robust distances of codes.

A normal row and n calibration rows that nothing was learned from are exchangeable, so the rank of its score among
theirs is uniform, whatever the score is and however few the rows are (Vovk, Gammerman & Shafer 2005, Algorithmic
Learning in a Random World; for the detection of outliers Bates et al. 2023, https://arxiv.org/abs/2104.08279).
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TAIL = 0.1  # share of the normal rows that the tail is fitted to
FEWEST = 20  # rows of the tail, at least; at most half of all
HEAVIEST = 0.9  # greatest shape ξ of a tail: at 1 it has no mean
ROBUST = 5  # rows a dimension that a robust covariance needs (Rousseeuw & van Zomeren 1990, JASA 85)
DIMENSIONS = 64  # dimensions beyond which it costs too much
ROWS = 500  # rows that it is taken of, at most, spread evenly: with more its search takes ten times as long


def surprisals(normal: Floats, values: Floats) -> Floats:
    """−log P(S ≥ s) in nats, column by column: how rare it is among normal rows that a statistic is as large.

    Within the range of the normal rows P is their share. Of the largest ones, beyond a threshold u, it is a
    generalised Pareto tail (Pickands 1975, https://doi.org/10.1214/aos/1176343003),

        P(S ≥ s) = k/n · (1 + ξ (s − u)/σ)^(−1/ξ),

    σ and ξ from probability-weighted moments (Hosking & Wallis 1987, https://doi.org/10.2307/1269343), ξ from 0,
    where the tail is exponential, to 0.9. A normal row's surprisal is 1 nat on average.

    Shapes: statistics of normal rows (n, C) and values (N, C), both NaN where a row has none; answer (N, C), 0 where a
    row has no value or normal rows have fewer than two.
    """
    columns = [_surprise(normal[:, c], values[:, c]) for c in range(values.shape[1])]
    return np.stack(columns, 1) if columns else np.zeros(values.shape)


def _surprise(normal: Floats, values: Floats) -> Floats:
    """The surprisals (N,) of one statistic."""
    known = np.sort(normal[~np.isnan(normal)])
    n = len(known)
    if n < 2:
        return np.zeros(len(values))
    k = min(max(int(TAIL * n), FEWEST), n // 2)
    threshold = known[n - k - 1]
    scale, shape = generalised_pareto(known[n - k :] - threshold)
    body = -np.log(np.maximum(n - np.searchsorted(known, values, "left"), k + 1) / n)
    beyond = np.maximum(values - threshold, 0) / max(scale, 1e-6 * abs(threshold), 1e-30)
    tail = np.log1p(shape * beyond) / shape if shape > 0 else beyond
    return np.where(np.isnan(values), 0.0, np.where(values > threshold, np.log(n / k) + tail, body))


def generalised_pareto(exceedances: Floats) -> tuple[float, float]:
    """Scale σ and shape ξ of a generalised Pareto law of ascending exceedances (k,), by weighted moments.

    With a_0 the mean and a_1 = E[x (1 − F(x))], ξ = 2 − a_0 / (a_0 − 2 a_1) and σ = 2 a_0 a_1 / (a_0 − 2 a_1). A tail
    lighter than exponential is taken for exponential, which has no end.
    """
    k = len(exceedances)
    mean = float(exceedances.mean())
    weighted = float((exceedances * np.arange(k - 1, -1, -1)).mean()) / max(k - 1, 1)
    gap = mean - 2 * weighted
    shape = min(2 - mean / gap, HEAVIEST) if gap > 0 else 0.0
    return (mean * (1 - shape), shape) if shape > 0 else (mean, 0.0)


def p_values(calibration: Floats, scores: Floats) -> Floats:
    """(1 + #{i : c_i ≥ s}) / (n + 1) of scores s, larger ones being stranger; ties count against an alarm.

    Shapes: calibration (n,), of which there may be none; scores (N,); answer (N,), 1/(n + 1) at least.

    >>> p_values(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])).tolist()
    [1.0, 0.75, 0.25]
    """
    n = len(calibration)
    below = np.searchsorted(np.sort(calibration), scores, "left")
    return (1 + n - below) / (n + 1)


def alarm_rate(alpha: float, calibrated_on: ArrayLike) -> Any:
    """⌊α(n + 1)⌋ / (n + 1): the chance that the p-value of a normal row is α or less, where scores do not tie.

    No p-value lies between it and α. The number n of calibration rows may be an array.

    >>> float(alarm_rate(0.05, 30)), float(alarm_rate(0.29, 99)), float(alarm_rate(0.05, 10))
    (0.03225806451612903, 0.29, 0.0)
    """
    n = np.asarray(calibrated_on)
    return np.floor(np.round(alpha * (n + 1), 9)) / (n + 1)  # 0.29 · 100 is 28.999… in binary


@dataclass(frozen=True)
class CodeDistance:
    """Squared Mahalanobis distance of codes from those of normal rows, what covariates explain taken out.

    Location and covariance are those of the half of the normal rows that lies closest together (minimum covariance
    determinant, Rousseeuw & Van Driessen 1999), which a few odd rows cannot pull; where there are fewer than five rows
    a dimension, more than 64 dimensions, or most rows coincide, a shrunk covariance of all (Ledoit & Wolf 2004).
    """

    slope: Floats  # (1 + T, D), the regression of codes on 1 and the T covariates
    scale: Floats  # (D,), standard deviations of what it leaves
    covariance: Any  # scikit-learn's estimate, of the scaled residuals

    @classmethod
    def fit(cls, codes: Floats, covariates: Floats | None, seed: int = 0) -> Self:
        """Learn from codes (n, D) of normal rows and their covariates (n, T), if there are any."""
        from sklearn.covariance import LedoitWolf, MinCovDet

        design = _design(codes, covariates)
        slope = np.asarray(np.linalg.lstsq(design, codes, rcond=None)[0], np.float64)
        left = codes - design @ slope
        scale: Floats = np.maximum(left.std(0, dtype=np.float64), 1e-12)
        n, D = codes.shape
        if n >= ROBUST * D and D <= DIMENSIONS:
            rows = np.linspace(0, n - 1, min(n, ROWS)).astype(int)
            with suppress(ValueError):  # half of the rows coincide, and their covariance is 0
                return cls(slope, scale, MinCovDet(random_state=seed).fit(left[rows] / scale))
        return cls(slope, scale, LedoitWolf().fit(left / scale))

    def __call__(self, codes: Floats, covariates: Floats | None) -> Floats:
        """Squared distances (N,) of codes (N, D) whose covariates are (N, T)."""
        left = (codes - _design(codes, covariates) @ self.slope) / self.scale
        return np.asarray(self.covariance.mahalanobis(left), np.float64)


def _design(codes: Floats, covariates: Floats | None) -> Floats:
    ones = np.ones((len(codes), 1))
    return ones if covariates is None else np.concatenate([ones, np.asarray(covariates, np.float64)], 1)
