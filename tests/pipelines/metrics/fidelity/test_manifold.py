"""Precision, recall, density, coverage: cases worked by hand, copies, collapse, half-samples as selections."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from postprior.pipelines.metrics.fidelity import manifold as balls
from postprior.pipelines.metrics.fidelity.manifold import NAMES, Balls, manifold
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics import neighbours
from postprior.pipelines.metrics.statistics.intervals import half_samples


def scores(real, fake, neighbours=1):
    real, fake = (np.asarray(points, np.float32) for points in (real, fake))
    real, fake = (points.reshape(len(points), -1) for points in (real, fake))
    result = manifold(*(Balls.fit(Space(points, np.ones((1, len(points))), neighbours)) for points in (real, fake)))
    return {name: value[0] for name, value in zip(NAMES, result, strict=True)}


def brute(real, fake, k):
    """Return the four scores by their definition, from all pairs."""
    within_real, within_fake, between = (
        cdist(x.astype(float), y.astype(float)) for x, y in ((real, real), (fake, fake), (real, fake))
    )
    in_real = between <= np.sort(within_real, 1)[:, k, None]
    in_fake = between <= np.sort(within_fake, 1)[:, k]
    density = in_real.sum(0).mean() / k
    return {
        "precision": in_real.any(0).mean(),
        "recall": in_fake.any(1).mean(),
        "density": density,
        "coverage": in_real.any(1).mean(),
    }


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
    """A bootstrap with replacement would affect every nearest-neighbour metric in this way."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(100, 3)), rng.normal(size=(100, 3))
    assert scores(real[:50], fake)["precision"] > 0
    assert scores(np.repeat(real[:50], 2, axis=0), fake)["precision"] == 0


def test_too_few_rows_for_the_neighbours_are_refused():
    with pytest.raises(ValueError, match="5 neighbours need more than 5 rows"):
        scores(np.zeros((5, 2)), np.zeros((9, 2)), neighbours=5)


HARD = {
    "alike": lambda rng, x: x,
    "far from the origin": lambda rng, x: x + 3000,
    "an outlier": lambda rng, x: np.concatenate([x[1:], 1e6 * x[:1]]),
    "few distinct rows": lambda rng, x: x[rng.integers(0, 9, len(x))],
    "many near copies": lambda rng, x: x[rng.integers(0, 9, len(x))] + 1e-5 * x,
    "concentrated": lambda rng, x: 0.1 * x,
    "spread": lambda rng, x: 30 * x,
}


@pytest.mark.parametrize("name", list(HARD))
@pytest.mark.parametrize("width", [2, 12])
def test_half_samples_equal_brute_force_on_the_rows_they_keep(name, width, monkeypatch):
    for module in (balls, neighbours):
        monkeypatch.setattr(module, "FLOATS", 2000)
    monkeypatch.setattr(balls, "SPARE", 1)
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(rows, width)) for rows in (140, 110))
    if name in ("far from the origin", "few distinct rows"):
        real = HARD[name](rng, real)
    real, fake = real.astype(np.float32), HARD[name](rng, fake).astype(np.float32)
    fake[:10] = real[:10]
    # half-samples leave out groups of four neighbouring rows, so neighbours further down the lists are needed
    order = [np.lexsort(x.T) for x in (real, fake)]
    weights = [half_samples(rank.argsort() // 4, 4, rng) for rank in order]
    found = manifold(*(Balls.fit(Space(x, w, 3)) for x, w in zip((real, fake), weights, strict=True)))
    for line, (w, v) in enumerate(zip(*weights, strict=True)):
        expected = brute(real[w > 0], fake[v > 0], 3)
        assert {key: value[line] for key, value in zip(NAMES, found, strict=True)} == pytest.approx(expected)


def test_weights_are_those_of_rows():
    """Weights count rows as often as they represent others, both as balls and as points."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(40, 2)) + 0.5
    w, v = rng.integers(1, 4, (1, 30)).astype(float), rng.integers(1, 4, (1, 40)).astype(float)
    found = dict(zip(NAMES, manifold(Balls.fit(Space(x, w, 3)), Balls.fit(Space(y, v, 3))), strict=True))
    between = cdist(x, y)
    in_real = between <= np.sort(cdist(x, x), 1)[:, 3, None]
    in_fake = between <= np.sort(cdist(y, y), 1)[:, 3]
    assert found["precision"] == pytest.approx((in_real.any(0) @ v[0]) / v.sum())
    assert found["density"] == pytest.approx(in_real.sum(0) @ v[0] / (3 * v.sum()))
    assert found["recall"] == pytest.approx((in_fake.any(1) @ w[0]) / w.sum())
    assert found["coverage"] == pytest.approx((in_real.any(1) @ w[0]) / w.sum())
