"""Likeness of images and volumes to their originals, pair by pair.

    SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / (μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂), C₁ = (0.01 L)², C₂ = (0.03 L)²

with means under a Gaussian window of σ = 1.5 about every pixel, borders mirrored (Wang et al. 2004,
https://doi.org/10.1109/TIP.2003.819861); PSNR = 10 log₁₀ L² / MSE in decibels; L1, the mean absolute difference. L is
the length of the range of values.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

FLOATS = 2**22  # values compared at once
SIGMA, REACH = 1.5, 5  # of the window, in pixels to either side; fewer where images are smaller
# of the range: a smaller error is rounding, and equal images have a PSNR
FINEST = float(np.finfo(np.float32).eps)


def likeness(
    images: NDArray[np.floating], originals: NDArray[np.floating], span: float
) -> dict[str, NDArray[np.float64]]:
    """`ssim`, `psnr` and `l1` of every pair, each (N,).

    Shapes: images and originals (N, channels, *space), space of one to three axes; span is L.
    """
    step = max(1, FLOATS // max(1, images[:1].size))
    found = [
        _compared(images[start : start + step], originals[start : start + step], span)
        for start in range(0, len(images), step)
    ]
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


def _compared(
    images: NDArray[np.floating], originals: NDArray[np.floating], span: float
) -> dict[str, NDArray[np.float64]]:
    """The three of one block of pairs."""
    x, y = (torch.from_numpy(np.array(block, np.float64)).div_(span) for block in (images, originals))
    difference = (x - y).flatten(1)
    error = difference.square().mean(1).clamp_min(FINEST**2)
    found = {
        "ssim": _similarity(x, y).flatten(1).mean(1),
        "psnr": -10 * error.log10(),
        "l1": span * difference.abs().mean(1),
    }
    return {name: values.numpy() for name, values in found.items()}


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM at every pixel of every channel, (n, channels, *space), of values of range 1."""
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = _windowed(x * x) - mean_x**2 + _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    near, alike = 0.01**2, 0.03**2
    brightness = (2 * mean_x * mean_y + near) / (mean_x**2 + mean_y**2 + near)
    return brightness * (2 * covariance + alike) / (variances + alike)


def _windowed(x: Tensor) -> Tensor:
    """Means (n, channels, *space) under the window, axis by axis."""
    for axis in range(2, x.dim()):
        lines = x.movedim(axis, -1)
        reach = min(REACH, lines.shape[-1] - 1)
        place = torch.arange(-reach, reach + 1, dtype=x.dtype)
        window = (-(place**2) / (2 * SIGMA**2)).exp()
        mirrored = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="reflect")
        means = F.conv1d(mirrored, (window / window.sum())[None, None])
        x = means.reshape(lines.shape).movedim(-1, axis)
    return x
