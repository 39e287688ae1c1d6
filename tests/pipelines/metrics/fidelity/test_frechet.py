"""Frechet distances: closed forms, copies, few and wide rows, weights as selections, and torchmetrics as an oracle."""

import numpy as np
import pytest
import torch

from postprior.pipelines.metrics.fidelity.frechet import Gaussian, distance, frechet_distance, root


def features(seed, rows=300, width=8, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) * scale + shift
    return x.astype(np.float32)


def frechet(real, fake):
    return float(frechet_distance(real, np.ones((1, len(real))), fake, np.ones((1, len(fake))))[0])


def symmetric_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def between(real, fake):
    """Return the distance of two samples by its definition."""
    a, b = np.cov(real.T.astype(float)), np.cov(fake.T.astype(float))
    shift = ((real.mean(0, dtype=float) - fake.mean(0, dtype=float)) ** 2).sum()
    half = symmetric_root(a)
    return shift + np.trace(a + b) - 2 * np.trace(symmetric_root(half @ b @ half))


def test_closed_form_of_two_gaussians():
    one = Gaussian(np.array([1.0, 2.0]), np.diag([2.0, 3.0]))
    other = Gaussian(np.array([0.0, 4.0]), np.diag([1.0, 4.0]))
    # the axes are shared: ‖Δμ‖² + Σ (σ₁ − σ₂)²
    assert distance(one, other) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2)


def test_closed_form_where_the_covariances_do_not_commute():
    a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 3.0])
    trace_of_root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))  # Tr √X of a 2 × 2 matrix
    found = distance(Gaussian(np.zeros(2), root(a)), Gaussian(np.zeros(2), root(b)))
    assert found == pytest.approx(np.trace(a) + np.trace(b) - 2 * trace_of_root)


@pytest.mark.parametrize("rank", [0, 2, 5])
def test_a_root_has_the_rank_of_its_covariance(rank):
    x = np.random.default_rng(0).normal(size=(rank, 5))
    found = root(x.T @ x)
    assert found.shape == (rank, 5)
    assert found.T @ found == pytest.approx(x.T @ x)


def test_a_set_is_at_distance_zero_from_itself_even_with_dead_and_repeated_features():
    x = features(0)
    x[:, 3], x[:, 5] = 0, x[:, 4]
    assert frechet(x, x) == pytest.approx(0, abs=1e-5)


def test_a_shift_is_its_squared_length():
    x = features(0)
    assert frechet(x, x + np.float32(2)) == pytest.approx(8 * 4, rel=1e-5)


def test_moments_are_unbiased_and_a_weight_of_zero_leaves_a_row_out():
    x = features(1)
    weights = np.repeat([2.0, 0.0], [120, 180])
    gaussian = Gaussian.fit(x, weights)
    assert gaussian.mean == pytest.approx(x[:120].mean(0, dtype=float))
    assert gaussian.root.T @ gaussian.root == pytest.approx(np.cov(x[:120].T.astype(float)))


def test_half_samples_equal_the_distances_of_the_rows_they_keep():
    real, fake = features(2, rows=60), features(3, rows=50, shift=0.5)
    weights = np.ones((2, 60)), np.ones((2, 50))
    kept = np.arange(60) % 2 > 0, np.arange(50) % 3 > 0
    for line, rows in zip(weights, kept, strict=True):
        line[1] = 2.0 * rows
    found = frechet_distance(real, weights[0], fake, weights[1])
    assert found == pytest.approx([between(real, fake), between(real[kept[0]], fake[kept[1]])], rel=1e-6)


@pytest.mark.parametrize(("rows", "others"), [(8, 8), (6, 30), (30, 6), (7, 5)])
def test_no_more_rows_than_features(rows, others):
    real, fake = features(2, rows=rows), features(3, rows=others)
    assert frechet(real, fake) == pytest.approx(between(real, fake), rel=1e-6)


def test_wide_features_cost_no_more_than_their_rows():
    """A covariance of these features would take 80 GB."""
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(20, 100_000)).astype(np.float32) for _ in range(2))
    turned = np.linalg.qr(np.concatenate([real, fake]).T.astype(float), mode="r").T  # the same points in 40 dimensions
    assert frechet(real, fake) == pytest.approx(between(turned[:20], turned[20:]), rel=1e-6)


def test_collapse_is_as_far_as_the_trace_of_the_covariance():
    x = features(0).astype(float)
    one = np.repeat(x.mean(0, keepdims=True), 300, axis=0)
    assert frechet(x, one) == pytest.approx(np.trace(np.cov(x.T)))


def test_one_row_has_no_covariance():
    assert np.isnan(frechet(features(0), features(0, rows=1)))


def test_duplicates_bias_the_distance_upwards():
    """This is why half-samples are drawn without replacement: repeated rows increase the distance."""
    rng = np.random.default_rng(0)
    reference, x = rng.normal(size=(200, 30)), rng.normal(size=(200, 30))
    repeated = x[rng.integers(0, 200, 200)]
    assert frechet(reference, repeated) > 1.2 * frechet(reference, x)


def test_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 8

        def forward(self, images):
            return images.flatten(1)

    real, fake = features(2), features(3, rows=200, scale=1.3, shift=0.5)
    metric = fid.FrechetInceptionDistance(Flat(), normalize=True, input_img_size=(2, 2, 2))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).double().reshape(-1, 2, 2, 2), real=True)
    metric.update(torch.from_numpy(fake).double().reshape(-1, 2, 2, 2), real=False)
    assert frechet(real, fake) == pytest.approx(float(metric.compute()), rel=1e-6)
