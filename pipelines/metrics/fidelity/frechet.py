"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500).

    d² = ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

With any roots RᵀR = Σ the last trace is the sum of the singular values of R₁ R₂ᵀ. A root of no more rows than features
is these rows themselves, so that wide features cost no more than rows do. The distance falls as rows are added (its
bias goes as 1/N), most where there are few rows a feature: compare only values of equal N.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf
from threadpoolctl import threadpool_limits

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores


@dataclass(frozen=True)
class Gaussian:
    """A mean (D,) and a root (R, D) of the covariance, RᵀR = Σ."""

    mean: Floats
    root: Floats

    @classmethod
    def fit(cls, features: Floats, weights: Floats) -> "Gaussian":
        """Weighted mean and unbiased covariance of features (N, D) under weights (N,), of two rows at least."""
        kept = weights > 0
        share = weights[kept] / weights.sum()
        x = features[kept].astype(np.float64)
        mean = share @ x
        x = (x - mean) * np.sqrt(share / (1 - share @ share))[:, None]  # n equal weights: 1/√(n − 1)
        return cls(mean, x if len(x) <= x.shape[1] else root(x.T @ x))


def scores(real: Space, fake: Space) -> Scores:
    """The Frechet distance in one space."""
    return {"frechet_distance": frechet_distance(real.features, real.weights, fake.features, fake.weights)}


def frechet_distance(real: Floats, real_weights: Floats, fake: Floats, fake_weights: Floats) -> Floats:
    """d² (B,) of features (N, D) and (N', D) under weights (B, N) and (B, N'); NaN of one row, which has no covariance.

    A thread does a half-sample alone: small decompositions gain nothing from several, and sums would depend on them.
    """

    def line(weights: tuple[Floats, Floats]) -> float:
        if min(np.count_nonzero(own) for own in weights) < 2:
            return math.nan
        return distance(Gaussian.fit(real, weights[0]), Gaussian.fit(fake, weights[1]))

    with threadpool_limits(1), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.array(list(pool.map(line, zip(real_weights, fake_weights, strict=True))))


def distance(first: Gaussian, second: Gaussian) -> float:
    """d² of two Gaussians."""
    crossed = first.root @ second.root.T
    small = crossed if len(crossed) < len(crossed.T) else crossed.T
    singular = np.sqrt(np.linalg.eigvalsh(small @ small.T).clip(0))
    spread = np.vdot(first.root, first.root) + np.vdot(second.root, second.root) - 2 * singular.sum()
    return max(0.0, float(((first.mean - second.mean) ** 2).sum() + spread))


def root(covariance: Floats) -> Floats:
    """R (rank, D) with RᵀR = Σ (D, D), by Cholesky's decomposition with pivots, which takes any rank."""
    factor, pivots, rank, _ = dpstrf(covariance, lower=1)  # (L Lᵀ)_ij = Σ_pᵢpⱼ
    return np.triu(factor.T[:rank])[:, pivots.argsort()]
