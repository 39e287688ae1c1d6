"""Rarity among normal rows: surprisals of statistics on a common scale, conformal p-values, robust distances of codes.

A normal row and n calibration rows that were not used for fitting are exchangeable. The rank of its score among the
calibration scores is therefore uniform, for any score and any n (Vovk, Gammerman & Shafer 2005, Algorithmic Learning in
a Random World; for outlier detection Bates et al. 2023, https://arxiv.org/abs/2104.08279).
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TAIL = 0.1  # share of the normal rows that the tail is fitted to
FEWEST = 20  # smallest number of rows in the tail, but at most half of all rows
HEAVIEST = 0.9  # largest shape ξ of a tail; with ξ = 1 the tail has no mean
ROBUST = 5  # rows per dimension that a robust covariance needs (Rousseeuw & van Zomeren 1990, JASA 85)
DIMENSIONS = 64  # largest dimension for a robust covariance; more would cost too much
ROWS = 500  # largest number of rows for it, evenly spaced; with more rows its search takes ten times as long


def surprisals(normal: Floats, values: Floats) -> Floats:
    """Return −log P(S ≥ s) in nats per column: how rare a value as large as s is among normal rows.

    Up to a threshold u, P is the share of normal rows with a value of at least s. Above u, P is the tail of a
    generalised Pareto distribution fitted to the k largest of n values (Pickands 1975,
    https://doi.org/10.1214/aos/1176343003),

        P(S ≥ s) = k/n · (1 + ξ (s − u)/σ)^(−1/ξ).

    σ and ξ are estimated by probability-weighted moments (Hosking & Wallis 1987, https://doi.org/10.2307/1269343), with
    ξ from 0 (exponential tail) to 0.9. The surprisal of a normal row is 1 nat on average.

    Shapes: normal (n, C) and values (N, C), NaN where a row has no value; result (N, C), 0 where a row has no value or
    fewer than two normal rows have one.
    """
    columns = [_surprisal(normal[:, c], values[:, c]) for c in range(values.shape[1])]
    return np.stack(columns, 1) if columns else np.zeros(values.shape)


def _surprisal(normal: Floats, values: Floats) -> Floats:
    """Return the surprisals (N,) of one statistic."""
    ordered = np.sort(normal[~np.isnan(normal)])
    n = len(ordered)
    if n < 2:
        return np.zeros(len(values))
    k = min(max(int(TAIL * n), FEWEST), n // 2)
    threshold = ordered[n - k - 1]
    scale, shape = generalised_pareto(ordered[n - k :] - threshold)
    body = -np.log(np.maximum(n - np.searchsorted(ordered, values, "left"), k + 1) / n)
    beyond = np.maximum(values - threshold, 0) / max(scale, 1e-6 * abs(threshold), 1e-30)
    tail = np.log1p(shape * beyond) / shape if shape > 0 else beyond
    return np.where(np.isnan(values), 0.0, np.where(values > threshold, np.log(n / k) + tail, body))


def generalised_pareto(exceedances: Floats) -> tuple[float, float]:
    """Fit a generalised Pareto distribution to ascending exceedances (k,); return scale σ and shape ξ.

    With probability-weighted moments a_0 (the mean) and a_1 = E[x (1 − F(x))],
    ξ = 2 − a_0 / (a_0 − 2 a_1) and σ = 2 a_0 a_1 / (a_0 − 2 a_1). If the estimate of ξ is negative, an exponential
    tail is fitted instead, because a tail with ξ < 0 ends at a finite value.
    """
    k = len(exceedances)
    mean = float(exceedances.mean())
    weighted = float((exceedances * np.arange(k - 1, -1, -1)).mean()) / max(k - 1, 1)
    gap = mean - 2 * weighted
    shape = min(2 - mean / gap, HEAVIEST) if gap > 0 else 0.0
    return (mean * (1 - shape), shape) if shape > 0 else (mean, 0.0)


def p_values(calibration: Floats, scores: Floats) -> Floats:
    """Return conformal p-values (1 + #{i : c_i ≥ s}) / (n + 1) of scores s; larger scores are more anomalous.

    Ties count against an alarm. Shapes: calibration (n,), n ≥ 0; scores (N,); result (N,), at least 1/(n + 1).

    >>> p_values(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])).tolist()
    [1.0, 0.75, 0.25]
    """
    n = len(calibration)
    below = np.searchsorted(np.sort(calibration), scores, "left")
    return (1 + n - below) / (n + 1)


def alarm_rate(alpha: float, calibrated_on: ArrayLike) -> Any:
    """Return ⌊α(n + 1)⌋ / (n + 1), the probability that a normal row has a p-value of at most α if scores have no ties.

    No p-value lies between this number and α. The number n of calibration rows may be an array.

    >>> float(alarm_rate(0.05, 30)), float(alarm_rate(0.29, 99)), float(alarm_rate(0.05, 10))
    (0.03225806451612903, 0.29, 0.0)
    """
    n = np.asarray(calibrated_on)
    return np.floor(np.round(alpha * (n + 1), 9)) / (n + 1)  # 0.29 · 100 is 28.999… in binary


@dataclass(frozen=True)
class CodeDistance:
    """Squared Mahalanobis distance of codes from the codes of normal rows, after regressing out covariates.

    Location and covariance are estimated by the minimum covariance determinant (Rousseeuw & Van Driessen 1999): from
    the half of the normal rows that lies closest together, so that a few outliers have no influence. With fewer than
    five rows per dimension, with more than 64 dimensions, or if most rows coincide, a shrunk covariance of all rows is
    used instead (Ledoit & Wolf 2004).
    """

    slope: Floats  # (1 + T, D), coefficients of the regression of codes on 1 and the T covariates
    scale: Floats  # (D,), standard deviations of the residuals
    covariance: Any  # scikit-learn's estimate for the scaled residuals

    @classmethod
    def fit(cls, codes: Floats, covariates: Floats | None, seed: int = 0) -> Self:
        """Fit to codes (n, D) of normal rows and their covariates (n, T), if there are any."""
        from sklearn.covariance import LedoitWolf, MinCovDet

        design = _design(codes, covariates)
        slope = np.asarray(np.linalg.lstsq(design, codes, rcond=None)[0], np.float64)
        residuals = codes - design @ slope
        scale: Floats = np.maximum(residuals.std(0, dtype=np.float64), 1e-12)
        n, D = codes.shape
        if n >= ROBUST * D and D <= DIMENSIONS:
            rows = np.linspace(0, n - 1, min(n, ROWS)).astype(int)
            with suppress(ValueError):  # raised if half of the rows coincide, so that their covariance is 0
                return cls(slope, scale, MinCovDet(random_state=seed).fit(residuals[rows] / scale))
        return cls(slope, scale, LedoitWolf().fit(residuals / scale))

    def __call__(self, codes: Floats, covariates: Floats | None) -> Floats:
        """Return squared distances (N,) of codes (N, D) with covariates (N, T)."""
        residuals = (codes - _design(codes, covariates) @ self.slope) / self.scale
        return np.asarray(self.covariance.mahalanobis(residuals), np.float64)


def _design(codes: Floats, covariates: Floats | None) -> Floats:
    ones = np.ones((len(codes), 1))
    return ones if covariates is None else np.concatenate([ones, np.asarray(covariates, np.float64)], 1)
