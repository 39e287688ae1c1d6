"""Singling out: what predicates say, that they isolate a synthetic row, and that the control attack is unbiased."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from postprior.pipelines.metrics.privacy.attacks.attack import Outcome
from postprior.pipelines.metrics.privacy.attacks.singling_out import (
    CANDIDATES,
    EQUAL,
    LEAST,
    MOST,
    Predicates,
    multivariate,
    outcome_of,
    singling_out,
    univariate,
)

NAN = np.nan


def test_a_missing_value_satisfies_no_predicate() -> None:
    rows = np.array([[1.0, 2.0], [NAN, 2.0], [3.0, NAN], [2.0, 5.0]])
    named = np.array([[True, False], [True, True], [False, True]])
    predicates = Predicates(
        named, np.array([[2, 0], [1, 2], [0, 5]]), np.array([[LEAST, 0], [LEAST, MOST], [0, EQUAL]])
    )
    expected = [[0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(predicates.true(rows), np.array(expected, bool))


def test_univariate_predicates_are_unique_values_and_single_extremes() -> None:
    numbers = [1.0, 1.0, 2.0, 5.0, NAN]  # the least value is no predicate, since two rows have it
    classes = [0.0, 0.0, 1.0, NAN, NAN]
    found = univariate(np.array([numbers, classes]).T, np.array([False, True]))
    told = [(a, p.values[0, a], p.comparison[0, a]) for p in found.blocks(2**24) for a in np.flatnonzero(p.named[0])]
    assert told == [(0, 2.0, EQUAL), (0, 5.0, EQUAL), (0, 5.0, LEAST), (1, 1.0, EQUAL)]


def test_multivariate_predicates_isolate_one_synthetic_row() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(200, 4)), rng.integers(0, 3, (200, 1))], 1)
    rows[rng.random(rows.shape) < 0.1] = NAN
    found = multivariate(rows, np.array([False] * 4 + [True]), 100, rng)
    assert len(found) == 100
    assert (found.true(rows).sum(1) == 1).all()
    assert set(found.named.sum(1)) <= set(range(2, 6))
    assert (found.comparison[:, 4] == EQUAL).all()
    assert len(np.unique(found.named.sum(1))) > 2
    identical = np.ones((50, 5))
    assert len(multivariate(identical, np.zeros(5, bool), 10, rng)) == 0
    assert CANDIDATES > 1


def test_guesses_about_the_same_person_count_once() -> None:
    """One training row is larger than all others, and each of twenty predicates isolates it and nobody else."""
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.uniform(size=(99, 5)), np.full((1, 5), 9.0)])
    control = rng.uniform(size=(50, 5))
    synthetic = np.concatenate([rng.uniform(size=(99, 5)), np.full((1, 5), 2.0)])
    guesses = Predicates(np.arange(20)[:, None] % 5 <= np.arange(5), np.full((20, 5), 2.0), np.full((20, 5), LEAST))
    outcome = outcome_of(train, control, synthetic, np.zeros(5, bool), guesses, rng)
    assert isinstance(outcome, Outcome)
    assert outcome.main.share == 1
    assert outcome.main.size == pytest.approx(1)
    assert outcome.details["people"] == 1


def test_the_control_attack_has_the_expectation_of_the_main_attack_without_a_leak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over all splits of six people into four training and two held-out ones, both attacks succeed equally often."""
    monkeypatch.setattr("postprior.pipelines.metrics.privacy.attacks.singling_out.FEWEST", 1)
    people = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [2.0, 1.0], [3.0, 0.0], [3.0, 1.0]])
    synthetic = people[[1, 2, 4]] + 0.25
    sums = np.zeros(2)
    for chosen in combinations(range(6), 4):
        train, control = people[[*chosen]], np.delete(people, chosen, 0)
        rng = np.random.default_rng(1)  # the same predicates for every split
        outcome = singling_out(train, control, synthetic, np.zeros(2, bool), 12, rng)["singling_out"]
        assert isinstance(outcome, Outcome)
        assert outcome.control.share < 1  # else it was cut, and the expectation is another one
        sums += outcome.main.share, outcome.control.share
    assert sums[0] > 0
    assert sums[0] == pytest.approx(sums[1])
