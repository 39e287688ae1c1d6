"""Half-samples: weights, spread, intervals, halves of a split, missing scores, and `gap_closed`."""

import numpy as np
import pytest

from postprior.pipelines.metrics.statistics.intervals import (
    combined,
    estimate,
    gap_closed,
    half_samples,
    halves,
    mean_of,
    too_few,
    weighted_auc,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing


def test_first_line_is_the_full_sample_and_groups_stay_whole():
    groups = np.repeat(np.arange(10), 3)
    weights = half_samples(groups, 50, np.random.default_rng(0))
    assert weights.shape == (51, 30)
    assert (weights[0] == 1).all()
    assert set(np.unique(weights[1:])) == {0, 2}
    assert (weights[1:].sum(1) == 30).all()
    per_group = weights.reshape(51, 10, 3)
    assert (per_group == per_group[:, :, :1]).all()


def test_every_stratum_keeps_its_share():
    groups = np.repeat(np.arange(12), 2)
    strata = np.repeat([0, 1, 1, 1], 6)  # three groups of stratum 0, nine of stratum 1
    weights = half_samples(groups, 200, np.random.default_rng(0), strata)
    assert np.allclose(weights[:, :6].sum(1), 6)
    assert np.allclose(weights[:, 6:].sum(1), 18)
    assert set(np.unique((weights[1:, :6] > 0).sum(1))) == {2, 4}  # one group of three, or two


def test_a_lone_group_is_always_kept():
    assert (half_samples(np.zeros(4, int), 20, np.random.default_rng(0)) == 1).all()


def test_weights_come_from_their_seed():
    draws = [half_samples(np.arange(30), 5, np.random.default_rng(3)) for _ in range(2)]
    assert (draws[0] == draws[1]).all()


@pytest.mark.parametrize("sources", [40, 41, 7])
def test_spread_of_half_samples_is_the_standard_error_of_a_mean(sources):
    rng = np.random.default_rng(1)
    x = rng.normal(size=sources)
    means = weighted_mean(x, half_samples(np.arange(sources), 20_000, rng))[1:]
    assert means.std() == pytest.approx(x.std(ddof=1) / np.sqrt(sources), rel=0.03)


def test_spread_follows_sources_not_rows():
    rng = np.random.default_rng(2)
    sources, copies = 24, 50
    x = np.repeat(rng.normal(size=sources), copies) + 0.01 * rng.normal(size=sources * copies)
    clustered = weighted_mean(x, half_samples(np.repeat(np.arange(sources), copies), 4000, rng))[1:]
    naive = weighted_mean(x, half_samples(np.arange(len(x)), 4000, rng))[1:]
    exact = x.reshape(sources, copies).mean(1).std(ddof=1) / np.sqrt(sources)
    assert clustered.std() == pytest.approx(exact, rel=0.06)
    assert naive.std() < exact / 5


def test_spread_of_a_stratified_mean_excludes_variance_between_strata():
    rng = np.random.default_rng(3)
    strata = np.repeat(np.arange(6), 5)
    x = 100.0 * strata + rng.normal(size=30)
    means = weighted_mean(x, half_samples(np.arange(30), 20_000, rng, strata))[1:]
    exact = np.sqrt((x.reshape(6, 5).var(1, ddof=1) / 5).sum()) / 6
    assert means.std() == pytest.approx(exact, rel=0.03)


def test_strata_of_one_source_have_variance():
    """Together, or with the smallest other stratum, so that no interval is too narrow."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=12)
    for strata, alike in (
        (np.arange(12), np.zeros(12, int)),
        (np.repeat([0, 1, 2], [8, 3, 1]), np.repeat([0, 1], [8, 4])),
    ):
        found, expected = (
            weighted_mean(x, half_samples(np.arange(12), 50, np.random.default_rng(0), of))[1:]
            for of in (strata, alike)
        )
        np.testing.assert_allclose(found, expected)
    assert (half_samples(np.zeros(3, int), 4, rng, np.arange(3)) == 1).all()  # one source


def test_intervals_have_about_their_nominal_coverage():
    rng = np.random.default_rng(4)
    weights = half_samples(np.repeat(np.arange(60), 2), 200, rng)
    covered = 0
    for _ in range(400):
        x = np.repeat(rng.normal(size=60), 2) + rng.normal(size=120)
        interval = estimate(weighted_mean(x, weights))
        covered += interval["low"] <= 0 <= interval["high"]
    assert 0.91 <= covered / 400 <= 0.98


def test_an_estimate_is_centred_on_the_value_and_kept_within_bounds():
    values = np.array([0.95, 0.5, 0.6, 0.7, 0.8])  # half-samples are biased by −0.3
    free, share = estimate(values), estimate(values, (0, 1))
    assert free["value"] == share["value"] == 0.95
    assert free["low"] == pytest.approx(0.95 - 0.1425)
    assert free["high"] == pytest.approx(0.95 + 0.1425)
    assert share["high"] == 1


def test_an_interval_holds_its_value_whatever_rounding_does() -> None:
    values = np.full(8, 0.1)
    assert values[1:].mean() != 0.1
    assert estimate(values) == {"value": 0.1, "low": pytest.approx(0.1), "high": pytest.approx(0.1)}
    assert estimate(values)["low"] <= 0.1 <= estimate(values)["high"]


def test_halves_share_no_source_and_balance_labels():
    groups = np.repeat(np.arange(50), 4)
    labels = groups % 5
    shuffled = np.random.default_rng(1).permutation(200)
    first, second = halves(groups[shuffled], labels[shuffled], np.random.default_rng(0))
    assert len(first) == len(second) == 100
    assert not set(groups[shuffled][first]) & set(groups[shuffled][second])
    assert (np.bincount(labels[shuffled][first]) == 20).all()


def test_halves_of_odd_strata_stay_nearly_equal():
    groups = np.repeat(np.arange(15), 10)
    labels = groups % 5  # three sources per label
    first, second = halves(groups, labels, np.random.default_rng(0))
    assert len(first) == len(second) >= 70
    assert not set(groups[first]) & set(groups[second])


def test_gap_closed_needs_a_gap_outside_the_noise():
    noise = np.random.default_rng(0).normal(size=201) * 0.1
    noise[0] = 0
    normal, reconstruction = np.zeros(201), 1 + noise
    assert gap_closed(np.full(201, 0.5), normal, reconstruction) == pytest.approx(0.5)
    inside = Missing("the confidence interval of the gap contains 0")
    assert gap_closed(np.full(201, 0.5), normal, noise) == inside
    assert gap_closed(np.zeros(201), np.zeros(201), np.zeros(201)) == inside
    assert str(gap_closed(normal, normal, -reconstruction)) == "0.0"  # not −0.0


def test_a_gap_of_scores_that_are_missing_is_missing_for_their_reason():
    normal, reconstruction, none = np.zeros(41), np.ones(41), Missing("there is one row")
    assert gap_closed(none, normal, reconstruction) == none
    assert gap_closed(normal, none, reconstruction) == none
    unsure = np.concatenate([[1.0], np.full(40, np.nan)])
    assert gap_closed(normal, normal, unsure) == Missing("too few rows for an interval")
    assert gap_closed(unsure / 2, normal, reconstruction) == 0.5  # the gap is sure, and so is the value


def test_a_missing_score_is_null_with_its_reason():
    assert estimate(Missing("there is one row")) == {"value": None, "why": "there is one row"}
    assert estimate(np.array([np.nan, 1.0, 2.0])) == {
        "value": None,
        "why": "the score is not finite for these rows",
    }


def test_a_value_stays_where_half_samples_leave_no_interval():
    """Up to a twentieth of the half-samples may have no value; the interval uses the others."""
    values = np.concatenate([[0.5], np.random.default_rng(0).normal(size=100)])
    values[1:7] = np.nan
    assert estimate(values) == {
        "value": 0.5,
        "low": None,
        "high": None,
        "why": "too few rows for an interval",
    }
    values[1:2] = 0
    assert estimate(values) == estimate(values[~np.isnan(values)])
    values[1] = np.inf
    assert estimate(values)["low"] is None


def test_combinations_of_missing_scores_are_missing():
    one, other, none = np.ones(3), np.full(3, 3.0), Missing("there is one row")
    assert combined(np.subtract, other, none) is none
    assert mean_of([one, none]) is none
    assert np.array_equal(mean_of([one, other]), np.full(3, 2.0))


def test_too_few_rows_are_missing_with_a_reason():
    assert too_few(2, 2, "rows") is None
    assert too_few(3, 5, "rows") == Missing("at least 5 rows are needed, found 3")
    assert too_few(1, 2, "rows") == Missing("at least 2 rows are needed, found 1")
    assert too_few(0, 2, "rows") == Missing("there are no rows")


@pytest.mark.filterwarnings("error")
def test_a_half_sample_without_weight_has_no_mean_and_no_auc():
    weights = np.array([[1.0, 1.0], [0.0, 0.0]])
    x = np.array([1.0, 3.0])
    assert np.array_equal(weighted_mean(x, weights), [2, np.nan], equal_nan=True)
    assert np.array_equal(weighted_auc(x, x - 2, weights, weights[:1]), [0.875, np.nan], equal_nan=True)


def test_no_rows_have_no_halves():
    first, second = halves(np.zeros(0, int), np.zeros(0, int), np.random.default_rng(0))
    assert len(first) == len(second) == 0
    assert half_samples(np.zeros(0, int), 3, np.random.default_rng(0)).shape == (4, 0)
