"""Kernel distances: a case by hand, brute force, torchmetrics as an oracle, half-samples, sensitivity."""

import numpy as np
import pytest
import torch

from postprior.pipelines.metrics.fidelity import kernels
from postprior.pipelines.metrics.fidelity.kernels import Kernels, median_distance, scores
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import half_samples


def features(seed, rows=120, shift=0.0, width=6):
    return (np.random.default_rng(seed).normal(size=(rows, width)) + shift).astype(np.float32)


def compared(real, fake, real_weights=None, fake_weights=None):
    weights = [np.ones((1, len(x))) if w is None else w for x, w in ((real, real_weights), (fake, fake_weights))]
    return tuple(scores(Space(real, weights[0], 1), Space(fake, weights[1], 1)).values())


def brute(real, fake, bandwidth):
    """Return both statistics by their definition, from all pairs."""
    real, fake = (x.astype(float) for x in (real, fake))

    def polynomial(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def gaussian(x, y):
        return np.exp(-((x[:, None] - y) ** 2).sum(-1) / (2 * bandwidth**2))

    def distinct_pairs(kernel, x):
        return kernel(x, x)[~np.eye(len(x), dtype=bool)].mean()

    return [
        distinct_pairs(kernel, real) + distinct_pairs(kernel, fake) - 2 * kernel(real, fake).mean()
        for kernel in (polynomial, gaussian)
    ]


def test_a_case_by_hand():
    real, fake = np.array([[0.0], [2.0]], np.float32), np.array([[1.0], [-1.0]], np.float32)
    polynomial, gaussian = compared(real, fake)
    # pairs: real 0·2, fake 1·−1, between 0·1, 0·−1, 2·1, 2·−1; the median distance is 2
    assert polynomial == pytest.approx([1**3 + 0**3 - 2 * (1 + 1 + 3**3 + (-1) ** 3) / 4])
    near, far, farther = np.exp(-1 / 8), np.exp(-4 / 8), np.exp(-9 / 8)
    assert gaussian == pytest.approx([far + far - 2 * (3 * near + farther) / 4])


@pytest.mark.parametrize("rows", [120, 75])
def test_equals_brute_force_in_blocks_of_any_size(rows, monkeypatch):
    real, fake = features(0), features(1, rows=rows, shift=0.3)
    expected = brute(real, fake, median_distance(real))
    for floats in (2**22, 120 * 7, 1):
        monkeypatch.setattr(kernels, "FLOATS", floats)
        assert np.ravel(compared(real, fake)) == pytest.approx(expected, rel=1e-6)


def test_half_samples_equal_the_distances_of_the_rows_they_keep():
    real, fake = features(0), features(1, rows=90, shift=0.2)
    rng = np.random.default_rng(0)
    weights = [half_samples(np.arange(len(x)) // 2, 3, rng) for x in (real, fake)]
    bandwidth = median_distance(real)
    found = np.stack(compared(real, fake, *weights), 1)
    for line, w, v in zip(found, *weights, strict=True):
        assert line == pytest.approx(brute(real[w > 0], fake[v > 0], bandwidth), rel=1e-6)


def test_weights_are_those_of_means():
    """A row of weight 2 counts as two rows, which form no pair with each other."""
    x, w = features(0, rows=4).astype(float), np.array([[1.0, 2.0, 1.0, 3.0]])
    kernel = (x @ x.T / 6 + 1) ** 3
    pairs = w.T * w * ~np.eye(4, dtype=bool)
    assert Kernels.fit(Space(x, w, 1), 1.0).within[0] == pytest.approx((pairs * kernel).sum() / pairs.sum())


def test_is_unbiased_and_its_error_covers_chance():
    rng = np.random.default_rng(0)
    values, errors = [], []
    for seed in range(40):
        real, fake = features(2 * seed, rows=60), features(2 * seed + 1, rows=60)
        lines = compared(real, fake, *(half_samples(np.arange(60), 60, rng) for _ in range(2)))[0]
        values.append(lines[0])
        errors.append(lines[1:].std())
    assert abs(np.mean(values)) < 2.5 * np.std(values) / np.sqrt(40)
    assert np.mean(errors) / np.std(values) == pytest.approx(np.sqrt(3), rel=0.25)  # too large for equal distributions


def test_the_error_is_that_of_the_full_sample_where_distributions_differ():
    rng = np.random.default_rng(0)
    values, errors = [], []
    for seed in range(40):
        real, fake = features(2 * seed, rows=100), features(2 * seed + 1, rows=100, shift=0.7)
        lines = compared(real, fake, *(half_samples(np.arange(100), 40, rng) for _ in range(2)))
        values.append([line[0] for line in lines])
        errors.append([line[1:].std() for line in lines])
    assert np.mean(errors, 0) / np.std(values, 0) == pytest.approx(1, rel=0.3)


def test_collapse_and_shift_are_detected_and_identical_sets_are_below_zero():
    real = features(0)
    same = np.ravel(compared(real, real))
    chance, shifted = np.ravel(compared(real, features(1))), np.ravel(compared(real, features(1, shift=1.0)))
    collapsed = np.ravel(compared(real, np.repeat(real[:1], 120, axis=0)))
    assert (same < 0).all()  # pairs of a row with itself occur between the sets, not within
    assert (shifted > 10 * np.abs(chance)).all()
    assert (collapsed > 5 * np.abs(chance)).all()


def test_the_bandwidth_is_the_median_distance_of_rows_that_differ():
    assert median_distance(np.array([[0.0], [0.0], [1.0], [5.0]])) == 4  # of 1, 1, 4, 5, 5
    assert median_distance(np.zeros((9, 3), np.float32)) == 1


def test_large_offsets_lose_no_precision():
    real, fake = features(0) + 1000, features(1) + 1000
    assert np.ravel(compared(real, fake))[1] == pytest.approx(brute(real, fake, median_distance(real))[1], rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_agrees_with_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")

    class Flat(torch.nn.Module):
        num_features = 8

        def forward(self, images):
            return images.flatten(1)

    real, fake = features(2, width=8), features(3, width=8, shift=0.5)
    metric = kid.KernelInceptionDistance(Flat(), subsets=1, subset_size=120, normalize=True)
    metric.set_dtype(torch.float64)
    for x, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(x).double().reshape(-1, 2, 2, 2), real=is_real)
    assert compared(real, fake)[0] == pytest.approx([float(metric.compute()[0])], rel=1e-6)


def test_a_half_sample_of_one_row_has_no_pairs():
    weights = np.stack([np.ones(3), [3.0, 0, 0], [1.5, 1.5, 0]])
    for found in compared(features(0, 3), features(1, 3), weights, np.ones((3, 3))):
        assert np.isfinite(found).tolist() == [True, False, True]
