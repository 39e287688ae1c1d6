"""Precision, recall, density, coverage: cases worked by hand, copies, collapse, half-samples as selections."""

import numpy as np
import pytest

from pipelines.metrics.manifold import Balls, manifold


def scores(real, fake, neighbours=1):
    real, fake = (np.asarray(points, np.float32) for points in (real, fake))
    real, fake = (points.reshape(len(points), -1) for points in (real, fake))
    result = manifold(*(Balls.fit(points, np.ones((1, len(points))), neighbours) for points in (real, fake)))
    return {name: value[0] for name, value in vars(result).items()}


def test_a_case_by_hand():
    # real balls: [-1, 1], [0, 2], [2, 10], [6, 14]; fake balls: [-1, 2], [0.5, 3.5], [2, 38]
    result = scores([0, 1, 6, 10], [0.5, 2, 20])
    assert result["precision"] == pytest.approx(2 / 3)  # 0.5 and 2 lie in real balls
    assert result["density"] == pytest.approx((2 + 2 + 0) / 3)  # 0.5 in two balls, 2 in two, 20 in none
    assert result["coverage"] == pytest.approx(3 / 4)  # the ball of 10 holds no fake
    assert result["recall"] == pytest.approx(1)  # 0 and 1 in the first, 6 and 10 in the ball of 20


def test_two_neighbours_by_hand():
    # real radii 2, 1, 2, 8; fake radii 39.5, 38.5, 39.5
    result = scores([0, 1, 2, 9], [0.5, 1.5, 40], neighbours=2)
    assert result["precision"] == pytest.approx(2 / 3)
    assert result["density"] == pytest.approx((4 - 1 + 4 - 0) / (2 * 3))  # 0.5 in three balls, 1.5 in four
    assert result["coverage"] == 1
    assert result["recall"] == 1


def test_a_set_against_itself_is_perfect():
    x = np.random.default_rng(0).normal(size=(60, 3))
    result = scores(x, x, neighbours=5)
    assert result["precision"] == result["recall"] == result["coverage"] == 1


def test_far_apart_sets_share_nothing():
    x = np.random.default_rng(0).normal(size=(60, 3))
    assert set(scores(x, x + 1000, neighbours=5).values()) == {0}


def test_collapse_is_precise_and_shows_in_recall_and_coverage():
    x = np.random.default_rng(0).normal(size=(200, 3))
    result = scores(x, np.repeat(x[:1], 200, axis=0), neighbours=5)
    assert result["precision"] == 1
    assert result["recall"] == pytest.approx(1 / 200)  # balls of radius 0 hold their own centre only
    assert result["coverage"] < 0.1


def test_duplicated_reals_shrink_their_balls():
    """A bootstrap with replacement would do this to every neighbour metric."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(100, 3)), rng.normal(size=(100, 3))
    assert scores(real[:50], fake)["precision"] > 0
    assert scores(np.repeat(real[:50], 2, axis=0), fake)["precision"] == 0


def test_too_few_rows_for_the_neighbours_are_refused():
    with pytest.raises(ValueError, match="5 neighbours need more than 5 rows"):
        scores(np.zeros((5, 2)), np.zeros((9, 2)), neighbours=5)


def test_half_samples_equal_the_scores_of_the_rows_they_keep():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(40, 3)), rng.normal(size=(50, 3)) + 0.5
    real_weights, fake_weights = np.ones((2, 40)), np.ones((2, 50))
    real_weights[1], fake_weights[1] = 2 * (rng.random(40) < 0.5), 2 * (rng.random(50) < 0.5)
    both = manifold(Balls.fit(real, real_weights, 3), Balls.fit(fake, fake_weights, 3))
    selected = scores(real[real_weights[1] > 0], fake[fake_weights[1] > 0], neighbours=3)
    for name, values in vars(both).items():
        assert values[1] == pytest.approx(selected[name])
