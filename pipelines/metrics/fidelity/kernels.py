"""Maximum mean discrepancies: squared distances between the mean embeddings of two sets of features.

    MMD² = E k(x, x') + E k(y, y') − 2 E k(x, y), x ≠ x', y ≠ y' (unbiased: may be negative)

(Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html), with two kernels of D features:

    kernel distance, KID: k(x, y) = (xᵀy / D + 1)³ (Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401)
    MMD:                  k(x, y) = exp(−‖x − y‖² / 2 h²), h the median distance between reference rows

In a half-sample, E is the weighted mean wᵀ K v, computed in float64. If both distributions are equal, the statistic is
degenerate and varies more between half-samples than between samples: its standard error is then too large by √3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores

FLOATS = 2**20  # kernel values per block: a buffer of a few megabytes is reused instead of allocated again
MEDIAN_ROWS = 2000  # maximum number of rows for the median distance


@dataclass(frozen=True)
class Kernels:
    """Features (N, D) and weights (B, N), with the means (2, B) of both kernels over pairs of distinct rows."""

    features: Floats
    weights: Floats
    bandwidth: float
    within: Floats

    @classmethod
    def fit(cls, space: Space, bandwidth: float | None = None) -> "Kernels":
        """Fit the kernels of a set; without a bandwidth, its own median distance is used, as for the reference set."""
        h = median_distance(space.features) if bandwidth is None else bandwidth
        return cls(space.features, space.weights, h, _within(space.features, space.weights, h))


def scores(real: Space, fake: Space) -> Scores:
    """Return both distances in one space."""
    reference = real.cached(Kernels.fit)
    samples = Kernels.fit(fake, reference.bandwidth)
    polynomial, gaussian = reference.within + samples.within - 2 * _between(reference, samples)  # (1 + B,)
    return {"kernel_distance": polynomial, "mmd": gaussian}


def median_distance(features: Floats) -> float:
    """Return the median distance between distinct rows among `MEDIAN_ROWS` evenly spaced ones; 1 if all coincide."""
    subset = np.unique(np.linspace(0, len(features) - 1, MEDIAN_ROWS).round().astype(int))
    distances = torch.pdist(torch.from_numpy(features[subset].astype(np.float64)))
    positive = distances[distances > 0]
    return float(positive.median()) if len(positive) else 1.0


def _within(features: Floats, weights: Floats, bandwidth: float) -> Floats:
    """Return kernel means (2, B) over pairs of distinct rows, (wᵀKw − Σ w² k(x, x)) / ((Σw)² − Σ w²), from half of K.

    NaN for a half-sample of one row, which has no pairs.
    """
    x = torch.from_numpy(features.astype(np.float64))  # (N, D)
    w = torch.from_numpy(np.array(weights.T))  # (N, B)
    total, step = torch.zeros(2, w.shape[1], dtype=torch.float64), max(1, FLOATS // len(x))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        doubled = 2 * w[start:]
        doubled[:step] /= 2  # the block on the diagonal counts once
        for kind, kernel in enumerate(_kernels(x[rows], x[start:], bandwidth)):
            total[kind] += (w[rows] * (kernel @ doubled)).sum(0)
    squared = (w**2).sum(0)
    diagonal = torch.stack([(w**2 * (x.square().mean(1) + 1).pow(3)[:, None]).sum(0), squared])
    pairs = w.sum(0) ** 2 - squared
    single = (w > 0).sum(0) < 2
    return ((total - diagonal) / pairs).masked_fill(single, torch.nan).numpy()


def _between(real: Kernels, fake: Kernels) -> Floats:
    """Return kernel means (2, B) over pairs of a real and a fake row, wᵀKv / Σw Σv."""
    x, y = (torch.from_numpy(side.features.astype(np.float64)) for side in (real, fake))
    w, v = (torch.from_numpy(np.array(side.weights.T)) for side in (real, fake))
    total, step = torch.zeros(2, w.shape[1], dtype=torch.float64), max(1, FLOATS // len(y))
    for block, weight in zip(x.split(step), w.split(step), strict=True):
        for kind, kernel in enumerate(_kernels(block, y, real.bandwidth)):
            total[kind] += (weight * (kernel @ v)).sum(0)
    return (total / (w.sum(0) * v.sum(0))).numpy()


def _kernels(x: Tensor, y: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """Return the polynomial and the Gaussian kernel (n, N) of x (n, D) and y (N, D), from one matrix product."""
    squared = x @ y.T
    linear = (squared / x.shape[1]).add_(1)
    squared.mul_(-2).add_(x.square().sum(1)[:, None]).add_(y.square().sum(1)).clamp_min_(0)
    return linear.square().mul_(linear), squared.mul_(-1 / (2 * bandwidth**2)).exp_()
