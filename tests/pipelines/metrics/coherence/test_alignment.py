"""Canonical correlations: known values are recovered in data that the directions were not fitted to."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from postprior.pipelines.metrics.coherence.alignment import UNCORRELATED, Alignment, Directions, shrunk_covariance
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.statistics.intervals import correlation, half_samples
from postprior.pipelines.metrics.statistics.missing import Missing

KNOWN = np.array([0.9, 0.6, 0.3])


def pairs(seed, rows=4000, known=KNOWN):
    """Return two modalities of 5 and 3 features, randomly mixed, with canonical correlations `known`."""
    mixing = np.random.default_rng(11)
    a, b = mixing.normal(size=(5, 5)), mixing.normal(size=(3, 3))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    y = known * x[:, :3] + np.sqrt(1 - known**2) * rng.normal(size=(rows, 3))
    return EvaluatorOutputs(((x @ a + 7).astype(np.float32), (y @ b).astype(np.float32)))


def ones(outputs):
    return np.ones((1, len(outputs)))


@pytest.mark.parametrize("rows", [7, 300])
def test_the_shrunk_covariance_is_that_of_scikit_learn(rows):
    x = np.random.default_rng(0).normal(size=(rows, 20)) * np.arange(1, 21)
    x -= x.mean(0)
    np.testing.assert_allclose(shrunk_covariance(x), ledoit_wolf(x, assume_centered=True)[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(shrunk_covariance(np.zeros((3, 2))), np.zeros((2, 2)))


@pytest.fixture(scope="module")
def directions():
    return Directions.fit(pairs(0))


def test_known_canonical_correlations_are_found_in_new_data(directions):
    new = pairs(1)
    (found,) = directions.correlations(new, ones(new))
    assert found[0] == pytest.approx(KNOWN, abs=0.05)
    assert directions.mean(new, ones(new)) == pytest.approx(KNOWN.mean(), abs=0.03)


def test_rows_that_lack_a_modality_do_not_count(directions):
    """Rows without the second modality, whose features are 0 there, change no correlation."""
    new, alone = pairs(1), pairs(2, rows=500)
    x, y = (np.concatenate(both) for both in zip(new.features, (alone.features[0], alone.features[1] * 0), strict=True))
    mask = np.stack([np.ones(4500, bool), np.arange(4500) < 4000], 1)
    more = EvaluatorOutputs((x, y), mask=mask)
    np.testing.assert_allclose(directions.mean(more, ones(more)), directions.mean(new, ones(new)), rtol=1e-9)
    known = Directions.fit(more).mean(new, ones(new))
    assert known == pytest.approx(KNOWN.mean(), abs=0.03)
    nothing = np.concatenate([np.zeros((1, 4000)), np.ones((1, 500))], 1)
    assert np.isnan(directions.mean(more, nothing)).all()


def test_modalities_that_determine_one_another_correlate_fully():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(500, 4))
    views = [rng.normal(size=(4, 4)) for _ in range(3)]
    directions = Directions.fit(EvaluatorOutputs(tuple(codes @ view for view in views)))
    assert len(directions.pairs) == 3
    new = rng.normal(size=(200, 4))
    new = EvaluatorOutputs(tuple(new @ view for view in views))
    assert directions.mean(new, ones(new)) == pytest.approx(1, abs=0.02)


def test_independent_modalities_do_not_correlate_and_collapse_is_no_correlation(directions):
    x, y = pairs(1).features
    far = EvaluatorOutputs((x, np.roll(y, 1, axis=0)))
    assert directions.mean(far, ones(far)) == pytest.approx(0, abs=0.03)
    one = pairs(1).select(np.zeros(50, int))
    assert directions.mean(one, ones(one)).tolist() == [0]


def test_a_constant_feature_has_no_effect():
    x, y = pairs(0).features
    wide = EvaluatorOutputs((np.concatenate([x, np.full((len(x), 1), 3, np.float32)], 1), y))
    (found,) = Directions.fit(wide).correlations(wide, ones(wide))
    assert found[0] == pytest.approx(KNOWN, abs=0.05)


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    y = x + rng.normal(size=(30, 2))
    times = rng.integers(0, 3, 30)
    repeated = [np.repeat(array, times, axis=0) for array in (x, y)]
    brute = [np.corrcoef(repeated[0][:, k], repeated[1][:, k])[0, 1] for k in range(2)]
    assert correlation(x, y, times[None].astype(float))[0] == pytest.approx(brute, rel=1e-9)


def test_preservation_is_the_share_of_rows_with_matching_modalities():
    """With a share q of matching pairs among independent ones, the correlation is q times as large."""
    real, weights = pairs(1), half_samples(np.arange(4000), 20, np.random.default_rng(0))
    alignment = Alignment.fit(pairs(0), seed=0)
    own = alignment.score(real, weights)
    assert (own["incoherence"] == 0).all()
    assert (own["canonical_preservation"] == 1).all()
    x, y = pairs(2).features
    half = EvaluatorOutputs((x, np.concatenate([y[:2000], np.roll(y[2000:], 1, axis=0)])))
    found = alignment.score(half, weights, own)
    assert found["canonical_preservation"][0] == pytest.approx(0.5, abs=0.05)
    assert found["incoherence"][0] == pytest.approx((own["pairing_auc"][0] - 0.5) / 2, abs=0.03)


def test_nothing_is_preserved_where_real_modalities_are_independent(monkeypatch):
    monkeypatch.setattr("postprior.pipelines.metrics.coherence.alignment.STEPS", 5)
    x, y = pairs(0, rows=300).features
    alignment = Alignment.fit(EvaluatorOutputs((x, np.roll(y, 1, axis=0))), seed=0)
    new = EvaluatorOutputs((pairs(1, rows=300).features[0], pairs(2, rows=300).features[1]))
    weights = half_samples(np.arange(300), 40, np.random.default_rng(0))
    assert alignment.score(new, weights)["canonical_preservation"] is UNCORRELATED


def test_one_modality_has_no_canonical_correlation():
    with pytest.raises(ValueError, match="two modalities"):
        Directions.fit(EvaluatorOutputs(pairs(0).features[:1]))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_have_no_scores(rows):
    some = pairs(0).select(np.arange(rows))
    found = Alignment.fit(some, seed=0).score(some, np.ones((1, rows)))
    assert set(found) == {"pairing_auc", "incoherence", "canonical_correlation", "canonical_preservation"}
    assert all(isinstance(values, Missing) for values in found.values())
