"""Statistics of features: numpy as an oracle, exact zeros, missing values."""

import numpy as np

from postprior.pipelines.metrics.tables.features import FeatureStatistics, apart, by_mean


def test_statistics_are_those_of_numpy_over_observed_values():
    rng = np.random.default_rng(0)
    values = rng.poisson(np.array([0.2, 3.0, 50.0]), size=(40, 3)).astype(float)
    values[:10, 1] = np.nan
    found = FeatureStatistics.of(values)
    for j in range(3):
        seen = values[:, j][~np.isnan(values[:, j])]
        np.testing.assert_allclose(
            [found.means[j], found.variances[j], found.zeros[j]], [seen.mean(), seen.var(), (seen == 0).mean()]
        )
    np.testing.assert_array_equal(np.isnan(found.totals), np.arange(40) < 10)
    np.testing.assert_allclose(found.totals[10:], values[10:].sum(1))


def test_zeros_are_exact_and_a_feature_that_is_never_seen_has_no_statistics():
    values = np.array([[0.0, 1e-30, np.nan], [-0.0, 0.0, np.nan]])
    found = FeatureStatistics.of(values)
    assert found.zeros[:2].tolist() == [1.0, 0.5]
    assert all(np.isnan(part[2]) for part in (found.means, found.variances, found.zeros))


def test_groups_hold_all_features_in_the_order_of_their_means():
    means = np.random.default_rng(0).permutation(10).astype(float)
    groups = by_mean(means)
    assert sorted(np.concatenate(groups).tolist()) == list(range(10))
    assert np.all(np.diff(means[np.concatenate(groups)]) > 0)


def test_a_changed_feature_is_the_farthest_apart():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 5))
    changed = values.copy()
    changed[:, 3] *= 4
    one, other = FeatureStatistics.of(values), FeatureStatistics.of(changed)
    assert apart(one, other).argmax() == 3
    assert apart(one, one).max() == 0
