"""Reconstruction errors, log evidence of rows under the autoencoder, and image similarity (SSIM, PSNR, L1).

    SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / (μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂), C₁ = (0.01 L)², C₂ = (0.03 L)²

with means under a Gaussian window of σ = 1.5 around every pixel and mirrored borders (Wang et al. 2004,
https://doi.org/10.1109/TIP.2003.819861); PSNR = 10 log₁₀ L² / MSE in decibels; L1 is the mean absolute difference. L is
the length of the value range.
"""

from functools import cache
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    Floats,
    Scores,
    estimate,
    mean_of_present,
    too_few,
    unscored,
    weighted_mean,
    well_observed,
)
from postprior.pipelines.metrics.statistics.missing import Written
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.modalities import Modality

DRAWS = 64  # importance samples per row
IMPORTANCE_ROWS = 16  # rows whose samples are decoded at once
FLOATS = 2**22  # image values compared at once
SIGMA, REACH = 1.5, 5  # of the window, in pixels to each side; fewer if images are smaller
FINEST = float(
    np.finfo(np.float32).eps
)  # smallest error relative to the range, so that equal images have a finite PSNR
BOUNDS = bounds_of("fidelity")


def log_evidence(model: Autoencoder, data: Dataset, weights: Floats, generator: torch.Generator) -> Written | None:
    """Estimate the mean log p(x) of rows in nats by importance sampling; None for a model without a tractable one.

    In expectation this is a lower bound. It is tight to hundredths of a nat only if the posterior is close to the exact
    one.
    """
    if not model.tractable:
        return None
    if missing := unscored(len(data)):
        return missing.written
    blocks = (slice(start, start + IMPORTANCE_ROWS) for start in range(0, len(data), IMPORTANCE_ROWS))
    values = [model.log_evidence(data.batch(block), generator, DRAWS) for block in blocks]
    return estimate(weighted_mean(torch.cat(values).double().numpy(), weights), (-np.inf, np.inf))


def reconstruction_scores(
    data: Dataset, reconstruction: Dataset, outputs: EvaluatorOutputs, weights: Floats
) -> dict[str, Any]:
    """Return the mean squared error of reconstructions, similarity of images and volumes, and accuracy of labels.

    Each is a mean over the modalities that have it and enough rows; the accuracy is that of rows with a label. Outputs
    and weights (1 + B, N) are those of the reconstructed rows.
    """
    if missing := unscored(len(data)):
        return {"reconstruction_error": missing.written, "modalities": {}}
    means: dict[str, Scores] = {}
    averaged = well_observed(data.observed.sum(0))
    for index, m in enumerate(data.modalities):
        rows = outputs.having(index)
        missing = too_few(len(rows), FEWEST, f"test rows with {m.title}")
        if missing:
            means[m.name] = {"reconstruction_error": missing}
            continue
        observed = data.cells[m.name][rows] if m.name in data.cells else None
        values, others = values_of(data, m, rows), values_of(reconstruction, m, rows)
        errors = row_errors(m, values, others, observed)
        means[m.name] = {key: weighted_mean(x, weights[:, rows]) for key, x in errors.items()}
        if (product := products(m, values, others, observed)) is not None:
            means[m.name]["correlation"] = weighted_mean(product, weights[:, rows])
        if outputs.predictions is not None and outputs.labels is not None:
            rows = rows[outputs.labels[rows] >= 0]
            correct = outputs.predictions[rows, index] == outputs.labels[rows]
            few = too_few(len(rows), FEWEST, f"test rows with {m.name} and a label")
            means[m.name]["accuracy"] = few or weighted_mean(correct, weights[:, rows])
    keys = dict.fromkeys(key for scores in means.values() for key in scores)
    in_mean = [*compress(means.values(), averaged)]
    by_key = {key: [scores[key] for scores in in_mean if key in scores] for key in keys}
    modalities = {name: {key: estimate(x, BOUNDS[key]) for key, x in scores.items()} for name, scores in means.items()}
    joint = {key: estimate(mean_of_present(values), BOUNDS[key]) for key, values in by_key.items() if values}
    return joint | {"modalities": modalities}


def row_errors(
    modality: Modality, values: np.ndarray, others: np.ndarray, observed: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the errors (N,) of values (N, *shape) of a modality against others, by name.

    The squared error is the mean over the `observed` values; 0 in a row without any.
    """
    squares = ((values - others) ** 2).reshape(len(values), -1)
    if observed is not None:
        seen = np.asarray(observed).reshape(squares.shape)
        squares = squares * seen / np.maximum(seen.mean(1, keepdims=True), 1 / squares.shape[1])
    errors: dict[str, Any] = {"reconstruction_error": squares.mean(1)}
    if modality.kind not in ("image", "volume"):
        return errors
    low, high = modality.range or (float(values.min()), float(values.max()))
    return errors | likeness(others, values, (high - low) or 1.0)


def products(
    modality: Modality, values: np.ndarray, others: np.ndarray, observed: NDArray[np.bool_] | None = None
) -> NDArray[np.float64] | None:
    """Return products (N,) of standardised values and others, both (N, *shape): their mean is the mean correlation.

    In tables and vectors, it is the mean correlation of the columns of numbers that vary; in other modalities, that of
    all values after the mean of each is subtracted. None if no values are numbers that vary, as in texts.
    """
    if modality.likelihood == "categorical":
        return None
    seen = np.ones(values.shape, bool) if observed is None else np.asarray(observed)
    x, y, seen = (array.reshape(len(values), -1) for array in (values, others, seen))
    if modality.columns:
        numbers = [column.likelihood not in ("categorical", "bernoulli") for column in modality.columns]
        x, y, seen = x[:, numbers], y[:, numbers], seen[:, numbers]
    shares = seen.mean(0).clip(1 / len(seen))
    weights = seen / shares  # (N, C); their mean over the rows is 1
    centred = [array - (array * weights).mean(0, dtype=np.float64) for array in (x, y)]
    variances = [(array**2 * weights).mean(0) for array in centred]
    if not modality.tabular:
        variances = [np.full(len(variance), variance.mean()) for variance in variances]
    varies = np.logical_and(*(variance > FINEST**2 for variance in variances))
    if not varies.any():
        return None
    spread = np.sqrt(variances[0][varies] * variances[1][varies])
    return np.asarray((centred[0] * centred[1] * weights)[:, varies] / spread).mean(1)


def likeness(images: Floats, originals: Floats, span: float) -> dict[str, Floats]:
    """Return `ssim`, `psnr` and `l1` of every pair, each (N,).

    Shapes: images and originals (N, channels, *space), with one to three spatial axes; `span` is L.
    """
    step = max(1, FLOATS // max(1, images[:1].size))
    ssim, psnr, l1 = [], [], []
    for start in range(0, len(images), step):
        block = slice(start, start + step)
        x, y = (torch.from_numpy(np.array(values[block], np.float64)).div_(span) for values in (images, originals))
        difference = (x - y).flatten(1)
        ssim.append(_similarity(x, y).flatten(1).mean(1))
        psnr.append(-10 * difference.square().mean(1).clamp_min(FINEST**2).log10())
        l1.append(span * difference.abs().mean(1))
    return {name: torch.cat(values).numpy() for name, values in {"ssim": ssim, "psnr": psnr, "l1": l1}.items()}


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """Return SSIM at every pixel of every channel (n, channels, *space), for values with a range of length 1."""
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = _windowed(x * x) - mean_x**2 + _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _windowed(x: Tensor) -> Tensor:
    """Return means (n, channels, *space) under the window, computed axis by axis."""
    for axis in range(2, x.dim()):
        x = (x.movedim(axis, -1) @ _window(x.shape[axis], x.dtype)).movedim(-1, axis)
    return x


@cache
def _window(pixels: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix (pixels, pixels) whose columns are the weights of the window around every pixel of a line."""
    reach = min(REACH, pixels - 1)
    offset = torch.arange(-reach, reach + 1, dtype=dtype)
    window = (-(offset**2) / (2 * SIGMA**2)).exp()
    lines = F.pad(torch.eye(pixels, dtype=dtype)[:, None], (reach, reach), mode="reflect")
    return F.conv1d(lines, (window / window.sum())[None, None])[:, 0]
