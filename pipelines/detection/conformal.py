"""Conformal p-values: the rank of a score among those of held-out normal rows.

A normal row and n calibration rows that nothing was learned from are exchangeable, so the rank of its score among
theirs is uniform, whatever the score is and however few the rows are (Vovk, Gammerman & Shafer 2005, Algorithmic
Learning in a Random World; for the detection of outliers Bates et al. 2023, https://arxiv.org/abs/2104.08279).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating[Any]]


def p_values(calibration: Floats, scores: Floats) -> NDArray[np.float64]:
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
