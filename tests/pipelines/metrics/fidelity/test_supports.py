"""α-precision, β-recall, authenticity: cases by hand, brute force over α and β, copies, collapse, half-samples."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from postprior.pipelines.metrics.fidelity.manifold import Balls
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.fidelity.supports import NAMES, calibration, supports
from postprior.pipelines.metrics.statistics.intervals import half_samples

GRID = (np.arange(500) + 0.5) / 500


def scores(real, fake, weights=None, neighbours=3):
    weights = [np.ones((1, len(x))) for x in (real, fake)] if weights is None else weights
    sets = (Balls.fit(Space(x, w, neighbours)) for x, w in zip((real, fake), weights, strict=True))
    return dict(zip(NAMES, supports(*sets), strict=True))


def points(*places):
    return np.array(places, np.float32)[:, None]


def brute(real, fake, k):
    """Return the three scores by their definition, with curves on a grid of α and β."""
    real, fake = real.astype(float), fake.astype(float)
    between, within = cdist(real, fake), cdist(real, real)
    balls = np.sort(within, 1)[:, k]

    def support(x, sample):
        """Return whether rows (n,) are in the balls around the sample's mean that contain shares GRID of it: (L, n)."""
        distance = np.linalg.norm(sample - sample.mean(0), axis=1)
        radii = np.quantile(distance, GRID, method="inverted_cdf")
        return np.linalg.norm(x - sample.mean(0), axis=1) <= radii[:, None]

    precision = support(fake, real).mean(1)
    recall = (support(real, fake) & (between.min(1) <= balls)).mean(1)
    owner = between.argmin(0)
    return {
        "alpha_precision": 1 - 2 * np.abs(precision - GRID).mean(),
        "beta_recall": 1 - 2 * np.abs(recall - GRID).mean(),
        "authenticity": (between.min(0) > np.sort(within, 1)[owner, 1]).mean(),
    }


def test_a_case_by_hand():
    real, fake = points(-3, -1, 0, 1, 3), points(0, 0.5, 4, 10)
    found = scores(real, fake, neighbours=1)
    # distances of reals to 0: 0 1 1 3 3; of fakes 0, 0.5, 4, 10: nearer are 0, 1, 5, 5 of five reals
    steps = [(0, 0.25), (0.2, 0.25), (1, 0.25), (1, 0.25)]
    p = np.array([sum(share for at, share in steps if at <= level) for level in GRID])
    assert found["alpha_precision"] == pytest.approx(1 - 2 * np.abs(p - GRID).mean(), abs=1e-3)
    # about 3.625 the fakes lie at 3.625, 3.125, 0.375, 6.375, the reals at 6.625, 4.625, 3.625, 2.625, 0.625;
    # balls [−5, −1], [−2, 0], [−1, 1], [0, 2], [1, 5]: the first holds no fake
    entries = np.array([1, 0.75, 0.5, 0.25, 0.25])
    r = (entries < GRID[:, None]).mean(1)
    assert found["beta_recall"] == pytest.approx(1 - 2 * np.abs(r - GRID).mean(), abs=1e-3)
    # 0 and 0.5 lie nearer to 0 than 1 does; 4 as near to 3 as to half of 3's distance to 1; 10 is far from 3
    assert found["authenticity"] == pytest.approx(1 / 4)


def test_calibration_of_uniform_and_of_constant_entries():
    level = (np.arange(1000) + 0.5) / 1000
    entries = np.stack([level, np.zeros(1000), np.ones(1000), np.full(1000, 0.5)])
    assert calibration(entries, np.ones((4, 1000))) == pytest.approx([1, 0, 0, 0.5], abs=1e-3)
    halved = np.where(level < 0.5, 2.0, 0.0)[None]  # only the lower half: F = 2α up to 1/2
    assert calibration(entries[:1], halved) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("change", ["alike", "narrow", "wide", "shifted", "copies", "few"])
def test_half_samples_equal_brute_force_on_the_rows_they_keep(change):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(90, 4)), rng.normal(size=(70, 4))
    fake = {
        "alike": fake,
        "narrow": 0.3 * fake,
        "wide": 3 * fake,
        "shifted": fake + 2,
        "copies": np.concatenate([real[:30], fake[:40]]),
        "few": fake[rng.integers(0, 6, 70)],
    }[change]
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    weights = [half_samples(np.arange(len(x)) // 3, 2, rng) for x in (real, fake)]
    found = scores(real, fake, weights)
    for line, (w, v) in enumerate(zip(*weights, strict=True)):
        expected = brute(real[w > 0], fake[v > 0], 3)
        assert {name: value[line] for name, value in found.items()} == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("width", [2, 50])
def test_samples_of_one_distribution_are_calibrated_and_others_are_not(width):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 1000, width))
    found = scores(real, fake, neighbours=5)
    assert found["alpha_precision"] > 0.93
    assert found["beta_recall"] > 0.93
    for change in (0.7, 1.4):
        other = scores(real, change * fake, neighbours=5)
        assert other["alpha_precision"] < 0.8
        assert other["beta_recall"] < 0.8


def test_authenticity_of_one_distribution_on_a_line():
    """A fake row at distance d from the nearer end of a gap G is authentic if the next gap E is shorter.

    P(E < d) = 1/3: gaps that contain a fake row are Gamma(2), other gaps exponential, and d is uniform up to G/2, so
    P(E > d) = ∫ 2 (1 − e^{−g/2}) e^{−g} dg = 2/3.
    """
    rng = np.random.default_rng(0)
    assert scores(rng.random((1500, 1)), rng.random((1500, 1)))["authenticity"] == pytest.approx(1 / 3, abs=0.03)


def test_copies_are_precise_and_not_authentic():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    found = scores(x, x)
    assert found["authenticity"] == 0
    assert found["alpha_precision"] == pytest.approx(1, abs=0.01)


def test_collapse_to_the_mean_and_outliers_are_not_precise():
    """All fake rows are in every support or in none, so neither curve follows the diagonal."""
    x = np.random.default_rng(0).normal(size=(200, 3))
    assert scores(x, np.repeat(x.mean(0, keepdims=True), 200, axis=0))["alpha_precision"] == pytest.approx(0)
    far = scores(x, x + 1000)
    assert far["alpha_precision"] == far["beta_recall"] == pytest.approx(0)
    assert far["authenticity"] == 1
