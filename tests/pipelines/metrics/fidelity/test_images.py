"""Similarity of images: cases by hand, torchmetrics as an oracle, small and wide images, volumes, equal pairs."""

import numpy as np
import pytest
import torch

from postprior.pipelines.metrics.fidelity import reconstruction as images
from postprior.pipelines.metrics.fidelity.reconstruction import likeness


def pair(*shape, seed=0, noise=0.2):
    rng = np.random.default_rng(seed)
    x = rng.random(shape)
    return np.clip(x + noise * rng.normal(size=shape), 0, 1).astype(np.float32), x.astype(np.float32)


def test_equal_images_are_alike_and_their_psnr_is_finite():
    x, _ = pair(3, 1, 12, 12)
    found = likeness(x, x, 1.0)
    assert found["ssim"] == pytest.approx(1)
    assert found["l1"] == pytest.approx(0)
    assert found["psnr"] == pytest.approx(20 * np.log10(2**23))  # as for images that differ by the float32 epsilon


def test_flat_images_by_hand():
    x, y = np.full((1, 2, 12, 12), 0.25), np.full((1, 2, 12, 12), 0.75)
    found = likeness(x, y, 1.0)
    assert found["l1"] == pytest.approx(0.5)
    assert found["psnr"] == pytest.approx(10 * np.log10(4))
    assert found["ssim"] == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4))


def test_an_inverted_image_is_unlike():
    _, x = pair(1, 1, 16, 16)
    assert likeness(1 - x, x, 1.0)["ssim"] < 0


@pytest.mark.parametrize(("shape", "span"), [((4, 3, 16, 20), 1.0), ((2, 1, 6, 9), 2.0), ((2, 2, 7, 6, 8), 1.0)])
def test_agrees_with_torchmetrics(shape, span):
    of = pytest.importorskip("torchmetrics.functional.image")
    x, y = pair(*shape)
    found = likeness(x, y, span)
    a, b = (torch.from_numpy(image).double() for image in (x, y))
    ssim = of.structural_similarity_index_measure(a, b, data_range=span, reduction="none")
    assert found["ssim"] == pytest.approx(ssim.numpy(), rel=1e-6)
    axes = tuple(range(1, len(shape)))
    psnr = of.peak_signal_noise_ratio(a, b, data_range=span, reduction="none", dim=axes)
    assert found["psnr"] == pytest.approx(psnr.numpy(), rel=1e-6)
    assert found["l1"] == pytest.approx((a - b).abs().mean(axes).numpy())


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 1, 5, 40), (3, 1, 2, 2), (3, 1, 1, 9)])
def test_images_smaller_than_the_window_are_compared_through_a_smaller_one(shape):
    x, y = pair(*shape)
    found = likeness(x, y, 1.0)["ssim"]
    assert (found < 1).all()
    assert (found > -1).all()
    assert likeness(y, y, 1.0)["ssim"] == pytest.approx(1)


def test_a_pair_does_not_depend_on_the_others(monkeypatch):
    x, y = pair(5, 1, 12, 12)
    whole = likeness(x, y, 1.0)
    monkeypatch.setattr(images, "FLOATS", 300)
    for name, values in likeness(x, y, 1.0).items():
        assert values == pytest.approx(whole[name])


def test_units_change_only_l1():
    x, y = pair(3, 1, 12, 12)
    one, hundredfold = likeness(x, y, 1.0), likeness(100 * x, 100 * y, 100.0)
    assert hundredfold["l1"] == pytest.approx(100 * one["l1"])
    for name in ("ssim", "psnr"):
        assert hundredfold[name] == pytest.approx(one[name], rel=1e-5)
