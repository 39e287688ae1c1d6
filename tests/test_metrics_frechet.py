"""Frechet distances: closed forms, copies, too few rows, weights as selections, and torchmetrics as an oracle."""

import numpy as np
import pytest
import torch

from pipelines.metrics.frechet import Gaussians, frechet_distance


def features(seed, rows=300, width=8, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) * scale + shift
    return x.astype(np.float32)


def fit(x, weights=None):
    return Gaussians.fit(x, np.ones((1, len(x))) if weights is None else weights)


def test_closed_form_of_two_gaussians():
    mean = np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])
    spread = np.diag([4.0, 9.0])[None], np.diag([1.0, 16.0])[None]
    distance = frechet_distance(Gaussians(mean[0], spread[0]), Gaussians(mean[1], spread[1]))
    # the axes are shared: ‖Δμ‖² + Σ (σ₁ − σ₂)²
    assert distance == pytest.approx([1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2])


def test_closed_form_where_the_covariances_do_not_commute():
    a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 3.0])
    trace_of_root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))  # Tr √X of a 2 × 2 matrix
    zero = np.zeros((1, 2))
    distance = frechet_distance(Gaussians(zero, a[None]), Gaussians(zero, b[None]))
    assert distance == pytest.approx([np.trace(a) + np.trace(b) - 2 * trace_of_root])


def test_a_set_is_at_distance_zero_from_itself_even_with_dead_features():
    x = features(0)
    x[:, 3] = 0
    assert frechet_distance(fit(x), fit(x)) == pytest.approx([0], abs=1e-5)


def test_a_shift_is_its_squared_length():
    x = features(0)
    assert frechet_distance(fit(x), fit(x + np.float32(2))) == pytest.approx([8 * 4], rel=1e-5)


def test_moments_are_unbiased_and_a_weight_of_zero_leaves_a_row_out():
    x = features(1)
    weights = np.zeros((2, 300))
    weights[0], weights[1, :120] = 1, 2
    gaussians = Gaussians.fit(x, weights)
    for line, rows in enumerate([x, x[:120]]):
        assert gaussians.mean[line] == pytest.approx(rows.mean(0), abs=1e-5)
        assert gaussians.covariance[line] == pytest.approx(np.cov(rows.T), rel=1e-4, abs=1e-4)


def test_too_few_rows_for_the_dimensions_are_refused():
    with pytest.raises(ValueError, match="needs more than 8 rows, found 8"):
        fit(features(0, rows=8))


def test_duplicates_bias_the_distance_upwards():
    """Why half-samples are drawn without replacement: repeated rows of the same distribution look farther away."""
    rng = np.random.default_rng(0)
    reference, x = rng.normal(size=(200, 30)), rng.normal(size=(200, 30))
    repeated = x[rng.integers(0, 200, 200)]
    assert frechet_distance(fit(reference), fit(repeated)) > 1.2 * frechet_distance(fit(reference), fit(x))


def test_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 8

        def forward(self, images):
            return images.flatten(1)

    real, fake = features(2), features(3, scale=1.3, shift=0.5)
    metric = fid.FrechetInceptionDistance(Flat(), normalize=True, input_img_size=(2, 2, 2))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real).double().reshape(-1, 2, 2, 2), real=True)
    metric.update(torch.from_numpy(fake).double().reshape(-1, 2, 2, 2), real=False)
    assert frechet_distance(fit(real), fit(fake)) == pytest.approx([float(metric.compute())], rel=1e-6)
