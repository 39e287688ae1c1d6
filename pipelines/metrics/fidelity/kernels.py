"""Maximum mean discrepancies: squared distances between the mean embeddings of two sets of features.

    MMD² = E k(x, x') + E k(y, y') − 2 E k(x, y), x ≠ x', y ≠ y': unbiased, so that it may be below 0

(Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html), with two kernels of D features:

    kernel distance, KID: k(x, y) = (xᵀy / D + 1)³ (Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401)
    MMD:                  k(x, y) = exp(−‖x − y‖² / 2 h²), h the median distance between reference rows

In a half-sample E is the mean under its weights, wᵀ K v, in float64. Of equal distributions the statistic is degenerate
and varies more between half-samples than between samples: its error is then overstated, by a factor of √3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores

FLOATS = 2**20  # values of a kernel held at once: memory of few megabytes is used again, not asked for anew
MEDIAN_ROWS = 2000  # whose distances give the bandwidth


@dataclass(frozen=True)
class Kernels:
    """Features (N, D) and weights (B, N), with the means (2, B) of both kernels over pairs of different rows."""

    features: Floats
    weights: Floats
    bandwidth: float
    within: Floats

    @classmethod
    def fit(cls, space: Space, bandwidth: float | None = None) -> "Kernels":
        """Kernels of a set; a reference finds the bandwidth itself, others take the reference's."""
        h = median_distance(space.features) if bandwidth is None else bandwidth
        return cls(space.features, space.weights, h, _within(space.features, space.weights, h))


def scores(real: Space, fake: Space) -> Scores:
    """Both distances in one space."""
    ours = real.known(Kernels.fit)
    theirs = Kernels.fit(fake, ours.bandwidth)
    polynomial, gaussian = ours.within + theirs.within - 2 * _between(ours, theirs)  # (1 + B,)
    return {"kernel_distance": polynomial, "mmd": gaussian}


def median_distance(features: Floats) -> float:
    """The median distance between different rows, of at most `MEDIAN_ROWS` evenly spaced ones; 1 where all coincide."""
    some = np.unique(np.linspace(0, len(features) - 1, MEDIAN_ROWS).round().astype(int))
    distances = torch.pdist(torch.from_numpy(features[some].astype(np.float64)))
    apart = distances[distances > 0]
    return float(apart.median()) if len(apart) else 1.0


def _within(features: Floats, weights: Floats, bandwidth: float) -> Floats:
    """Mean kernels (2, B) of pairs of different rows, (wᵀKw − Σ w² k(x, x)) / ((Σw)² − Σ w²), from half of K.

    NaN for a half-sample of one row, which makes no pair.
    """
    x = torch.from_numpy(features.astype(np.float64))  # (N, D)
    w = torch.from_numpy(np.array(weights.T))  # (N, B)
    total, step = torch.zeros(2, w.shape[1], dtype=torch.float64), max(1, FLOATS // len(x))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        doubled = 2 * w[start:]
        doubled[:step] /= 2  # the block on the diagonal is there once
        for kind, kernel in enumerate(_kernels(x[rows], x[start:], bandwidth)):
            total[kind] += (w[rows] * (kernel @ doubled)).sum(0)
    squared = (w**2).sum(0)
    itself = torch.stack([(w**2 * (x.square().mean(1) + 1).pow(3)[:, None]).sum(0), squared])
    pairs = w.sum(0) ** 2 - squared
    alone = (w > 0).sum(0) < 2
    return ((total - itself) / pairs).masked_fill(alone, torch.nan).numpy()


def _between(real: Kernels, fake: Kernels) -> Floats:
    """Mean kernels (2, B) of pairs of a real and a fake row, wᵀKv / Σw Σv."""
    x, y = (torch.from_numpy(of.features.astype(np.float64)) for of in (real, fake))
    w, v = (torch.from_numpy(np.array(of.weights.T)) for of in (real, fake))
    total = torch.zeros(2, w.shape[1], dtype=torch.float64)
    for some, weight in zip(*(of.split(max(1, FLOATS // len(y))) for of in (x, w)), strict=True):
        for kind, kernel in enumerate(_kernels(some, y, real.bandwidth)):
            total[kind] += (weight * (kernel @ v)).sum(0)
    return (total / (w.sum(0) * v.sum(0))).numpy()


def _kernels(x: Tensor, y: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
    """The polynomial and the Gaussian kernel (n, N) of x (n, D) and y (N, D), of one product."""
    squared = x @ y.T
    linear = (squared / x.shape[1]).add_(1)
    squared.mul_(-2).add_(x.square().sum(1)[:, None]).add_(y.square().sum(1)).clamp_min_(0)
    return linear.square().mul_(linear), squared.mul_(-1 / (2 * bandwidth**2)).exp_()
