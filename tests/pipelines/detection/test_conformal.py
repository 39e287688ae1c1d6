"""Conformal p-values, and the rate of alarms among normal rows."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from postprior.pipelines.detection.rarity import alarm_rate, p_values

ALPHAS = (0.01, 0.05, 0.1, 0.29, 0.5)


def test_p_values_by_hand() -> None:
    calibration = np.array([3.0, 1.0, 2.0, 2.0])
    found = p_values(calibration, np.array([0.5, 1.0, 2.0, 2.5, 3.0, 4.0]))
    np.testing.assert_array_equal(found, np.array([5, 5, 4, 2, 2, 1]) / 5)


def test_without_calibration_rows_nothing_is_unusual() -> None:
    assert p_values(np.zeros(0), np.array([1e9])).tolist() == [1.0]
    assert alarm_rate(0.5, 0) == 0


@pytest.mark.parametrize("n", [1, 9, 19, 57, 99, 999])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_alarm_rate_is_exact(n: int, alpha: float) -> None:
    """Each of n + 1 exchangeable scores is equally likely to be the new one: the share of alarms is `alarm_rate`."""
    scores = np.random.default_rng(0).permutation(n + 1).astype(float)
    alarms = [p_values(np.delete(scores, new), scores[new : new + 1])[0] <= alpha for new in range(n + 1)]
    promised = Fraction(floor(Fraction(str(alpha)) * (n + 1)), n + 1)
    assert sum(alarms) == promised * (n + 1)
    assert alarm_rate(alpha, n) == float(promised)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_p_value_lies_between_alpha_and_the_alarm_rate(alpha: float) -> None:
    """Comparing p-values with α or with the alarm rate flags the same rows, although α(n + 1) is rounded in binary."""
    for n in (9, 99, 128):
        attainable = np.arange(1, n + 2) / (n + 1)
        np.testing.assert_array_equal(attainable <= alpha, attainable <= alarm_rate(alpha, n))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("law", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_false_alarms_over_random_splits(alpha: float, law: str) -> None:
    """Over 400 splits of normal scores of any distribution, the mean share of alarms is `alarm_rate`, within 0.01."""
    rng = np.random.default_rng(1)
    n, shares = 57, []
    for _ in range(400):
        scores = getattr(rng, law)(n + 200)
        shares.append(np.mean(p_values(scores[:n], scores[n:]) <= alpha))
    assert np.mean(shares) == pytest.approx(float(alarm_rate(alpha, n)), abs=0.01)


def test_rows_that_differ_are_flagged_more_often_than_the_alarm_rate() -> None:
    rng = np.random.default_rng(2)
    found = p_values(rng.normal(size=99), rng.normal(size=5000) + 3)
    assert np.mean(found <= 0.05) > 0.8


def test_ties_never_raise_the_rate() -> None:
    """If scores take few values, the share of alarms stays at most `alarm_rate`."""
    rng = np.random.default_rng(3)
    shares = [np.mean(p_values(rng.integers(4, size=19), rng.integers(4, size=100)) <= 0.1) for _ in range(300)]
    assert np.mean(shares) <= alarm_rate(0.1, 19)
