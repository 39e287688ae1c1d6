"""How well an autoencoder reconstructs rows, how likely they are to it, and the likeness of images to their originals.

    SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / (μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂), C₁ = (0.01 L)², C₂ = (0.03 L)²

with means under a Gaussian window of σ = 1.5 about every pixel, borders mirrored (Wang et al. 2004,
https://doi.org/10.1109/TIP.2003.819861); PSNR = 10 log₁₀ L² / MSE in decibels; L1, the mean absolute difference. L is
the length of the range of values.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import Floats, estimate, unscored, weighted_mean
from postprior.pipelines.metrics.statistics.missing import Written
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE

DRAWS = 64  # importance draws a row
IMPORTANCE_ROWS = 16  # rows whose draws are decoded at once
FLOATS = 2**22  # values of images compared at once
SIGMA, REACH = 1.5, 5  # of the window, in pixels to either side; fewer where images are smaller
FINEST = float(np.finfo(np.float32).eps)  # of the range: a smaller error is rounding, and equal images have a PSNR
BOUNDS = bounds_of("fidelity")


def log_evidence(model: MultimodalVAE, data: Dataset, weights: Floats, generator: torch.Generator) -> Written | None:
    """Mean log p(x) of rows in nats, by importance sampling; None for a model that has no tractable one.

    A lower bound in expectation, within hundredths of a nat only where the posterior is close to the exact one.
    """
    if not model.tractable:
        return None
    if few := unscored(len(data)):
        return few.written
    blocks = (slice(start, start + IMPORTANCE_ROWS) for start in range(0, len(data), IMPORTANCE_ROWS))
    values = [model.log_evidence(data.batch(block), generator, DRAWS) for block in blocks]
    return estimate(weighted_mean(torch.cat(values).double().numpy(), weights), (-np.inf, np.inf))


def reconstruction_scores(
    data: Dataset, reconstruction: Dataset, outputs: EvaluatorOutputs, weights: Floats
) -> dict[str, Any]:
    """Mean squared error of reconstructions, likeness of images and volumes, with labels judged accuracy.

    Each is a mean over the modalities that have it. Outputs and weights (1 + B, N) are of the reconstructed rows.
    """
    if few := unscored(len(data)):
        return {"reconstruction_error": few.written, "modalities": {}}
    rows = {m.name: row_errors(m, data.data[m.name], reconstruction.data[m.name]) for m in data.modalities}
    if outputs.predictions is not None and outputs.labels is not None:
        for of, predicted in zip(rows.values(), outputs.predictions.T, strict=True):
            of["accuracy"] = predicted == outputs.labels
    means = {name: {kind: weighted_mean(values, weights) for kind, values in of.items()} for name, of in rows.items()}
    by_kind = {kind: [of[kind] for of in means.values() if kind in of] for of in rows.values() for kind in of}
    own = {name: {kind: estimate(line, BOUNDS[kind]) for kind, line in of.items()} for name, of in means.items()}
    joint = {kind: estimate(np.mean(lines, 0), BOUNDS[kind]) for kind, lines in by_kind.items()}
    return joint | {"modalities": own}


def row_errors(modality: Modality, values: np.ndarray, others: np.ndarray) -> dict[str, NDArray[Any]]:
    """What sets values (N, *shape) of a modality apart from others, by name and row (N,)."""
    errors: dict[str, Any] = {"reconstruction_error": ((values - others) ** 2).reshape(len(values), -1).mean(1)}
    if modality.kind not in ("image", "volume"):
        return errors
    low, high = modality.range or (float(values.min()), float(values.max()))
    return errors | likeness(others, values, (high - low) or 1.0)


def likeness(images: Floats, originals: Floats, span: float) -> dict[str, Floats]:
    """`ssim`, `psnr` and `l1` of every pair, each (N,).

    Shapes: images and originals (N, channels, *space), space of one to three axes; span is L.
    """
    step = max(1, FLOATS // max(1, images[:1].size))
    ssim, psnr, l1 = [], [], []
    for start in range(0, len(images), step):
        block = slice(start, start + step)
        x, y = (torch.from_numpy(np.array(of[block], np.float64)).div_(span) for of in (images, originals))
        difference = (x - y).flatten(1)
        ssim.append(_similarity(x, y).flatten(1).mean(1))
        psnr.append(-10 * difference.square().mean(1).clamp_min(FINEST**2).log10())
        l1.append(span * difference.abs().mean(1))
    return {name: torch.cat(values).numpy() for name, values in {"ssim": ssim, "psnr": psnr, "l1": l1}.items()}


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
