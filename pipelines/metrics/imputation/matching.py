"""Predictive mean matching: a value is that of a training row with a near prediction (Little 1988,
https://doi.org/10.1080/07350015.1988.10509663)."""

from __future__ import annotations

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

DONORS = 10  # training rows with the nearest predictions, of which one gives its value
PENALTIES = 10.0 ** (np.arange(-4, 6) / 2)  # of ridge regressions of standardised predictors


def nearest(predicted: Floats, target: Floats, k: int) -> Ints:
    """Return for each target (n,) the places of the k nearest of sorted predictions (N,): (n, min(k, N)).

    >>> nearest(np.array([0.0, 1.0, 5.0, 6.0]), np.array([5.1]), 2).tolist()
    [[2, 3]]
    """
    most = len(predicted)
    k = min(k, most)
    first = (np.searchsorted(predicted, target) - k).clip(0, max(most - 2 * k, 0))
    near = first[:, None] + np.arange(min(2 * k, most))
    distance = np.abs(predicted[near] - target[:, None])
    return np.take_along_axis(near, np.argpartition(distance, k - 1, 1)[:, :k], 1)


class Matching:
    """Draws the value of one of the training rows whose predictions by a ridge regression are nearest.

    Training rows are predicted by the regression without them, so that they are as far from their predictions as other
    rows are; the error of these predictions also chooses the penalty.

    Args:
        values: values of the training rows, (N,).
        x: their predictors (N, P); NaN counts as the mean.
    """

    def __init__(self, values: Floats, x: Floats) -> None:
        present = ~np.isnan(x)
        self.mean = np.where(present, x, 0).sum(0) / present.sum(0).clip(1)
        x = np.where(present, x - self.mean, 0)
        self.scale = x.std(0)
        self.scale[self.scale == 0] = 1
        self.level = float(values.mean())
        u, s, v = np.linalg.svd(x / self.scale, full_matrices=False)
        y = values - self.level
        found = [_left_out(u, s**2 / (s**2 + penalty), y) for penalty in PENALTIES]
        best = int(np.argmin([np.square(y - predicted).mean() for predicted in found]))
        self.left_out_error = float(np.square(y - found[best]).mean())
        penalty = PENALTIES[best]
        self.slopes = v.T @ (s / (s**2 + penalty) * (u.T @ y))
        order = np.argsort(found[best], kind="stable")
        self.predicted, self.values = found[best][order] + self.level, values[order]

    def predictions(self, x: Floats) -> Floats:
        """Return the predictions (n,) of rows x (n, P)."""
        standardised = np.nan_to_num((x - self.mean) / self.scale)
        prediction: Floats = self.level + standardised @ self.slopes
        return prediction

    def draws(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Return for each row x (n, P) the value of one of `DONORS` training rows, (n, 1)."""
        donors = nearest(self.predicted, self.predictions(x), DONORS)
        return self.values[donors[np.arange(len(x)), rng.integers(donors.shape[1], size=len(x))]][:, None]


def _left_out(u: Floats, shrunk: Floats, y: Floats) -> Floats:
    """Return the prediction of each row by the ridge regression of the others: y − e / (1 − h) (Allen 1974).

    Args:
        u: left singular vectors (N, K) of the centred predictors.
        shrunk: factors (K,) of their directions.
        y: centred values (N,).
    """
    leverage = np.square(u) @ shrunk + 1 / len(y)
    predicted: Floats = y - (y - u @ (shrunk * (u.T @ y))) / np.maximum(1 - leverage, 1e-6)
    return predicted
