"""The statistic of an attack: Wilson intervals, effective numbers of attacks, the risk and its error, and flags."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from postprior.pipelines.metrics.privacy.attacks.attack import Outcome, Rate, leaking_attacks
from postprior.pipelines.metrics.statistics.missing import Missing


@pytest.mark.parametrize(("successes", "attacks"), [(0, 50), (7, 50), (25, 50), (50, 50)])
def test_independent_attacks_have_the_interval_of_wilson(successes: int, attacks: int) -> None:
    right = np.arange(attacks) < successes
    rate = Rate.of(right, np.ones(attacks))
    assert rate.size == pytest.approx(attacks)
    expected = binomtest(successes, attacks).proportion_ci(method="wilson")
    centre, half = rate.interval()
    assert (centre - half, centre + half) == pytest.approx((expected.low, expected.high))
    assert rate.written["low"] <= rate.written["value"] <= rate.written["high"]


def test_repeated_attacks_on_a_person_count_once_if_they_agree_and_more_if_they_do_not() -> None:
    right = np.arange(40) < 10
    agreeing = Rate.of(3.0 * right, np.full(40, 3.0))
    assert (agreeing.share, agreeing.size) == pytest.approx((0.25, 40))
    rng = np.random.default_rng(0)
    independent = Rate.of(rng.binomial(3, 0.25, 20_000), np.full(20_000, 3.0))
    assert independent.size == pytest.approx(60_000, rel=0.03)


def test_the_risk_and_its_error_follow_from_both_rates() -> None:
    main, control = Rate(0.6, 400), Rate(0.2, 100)
    (r, r_error), (c, c_error) = main.interval(), control.interval()
    risk, low, high = Outcome(main, control, 0.1, 400).risk()
    assert risk == pytest.approx((r - c) / (1 - c))

    def moved(a: float, b: float) -> float:
        return (r + a - c - b) / (1 - c - b) - risk

    step = 1e-6
    error = np.hypot(moved(step, 0) / step * r_error, moved(0, step) / step * c_error)
    assert (low, high) == pytest.approx((risk - error, risk + error), rel=1e-4)


def test_the_interval_of_the_risk_has_its_level() -> None:
    """Both attacks succeed with the same probability: the risk is 0, and as often as it should be, in the interval."""
    rng = np.random.default_rng(0)
    successes = rng.binomial(200, 0.3, (2000, 2)) / 200
    ends = [Outcome(Rate(r, 200), Rate(c, 200), 0.0, 200).risk()[1:] for r, c in successes]
    covered = np.mean([low <= 0 <= high for low, high in ends])
    assert 0.935 < covered < 0.97


def test_an_attack_that_always_succeeds_says_nothing_about_training_rows() -> None:
    always = Rate(1.0, 500)
    risk, low, high = Outcome(always, always, 0.5, 500).risk()
    assert risk == 0
    assert (low, high) == (-1, 1)


def test_a_flag_needs_a_risk_above_the_margin_after_correction() -> None:
    none, weak, strong = (Outcome(Rate(share, 1000), Rate(0.2, 1000), 0.0, 1000) for share in (0.2, 0.25, 0.5))
    outcomes = {"none": none, "weak": weak, "strong": strong, "missing": Missing("no rows")}
    assert leaking_attacks(outcomes, 0.0) == ["weak", "strong"]
    assert leaking_attacks(outcomes, 0.05) == ["strong"]
    chance = {str(i): Outcome(Rate(0.237, 1000), Rate(0.2, 1000), 0.0, 1000) for i in range(20)}
    assert leaking_attacks({"one": chance["0"]}, 0.0) == ["one"]
    assert leaking_attacks(chance, 0.0) == []  # one of twenty is expected


def test_one_secret_alone_is_enough_for_a_flag() -> None:
    rates = Rate(0.2, 5000), Rate(0.2, 5000)
    secrets = {f"a{i}": rates for i in range(9)} | {"diagnosis": (Rate(0.6, 500), Rate(0.2, 500))}
    outcome = Outcome(*rates, 0.0, 5000, secrets=secrets)
    assert leaking_attacks({"inference": outcome}, 0.05) == ["inference"]
    assert outcome.written["secrets"][0]["attribute"] == "diagnosis"
    assert outcome.written["high"] < 0.05
