"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500).

    d² = ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

For any roots with RᵀR = Σ, the trace of the last term is the sum of the singular values of R₁ R₂ᵀ. If there are no more
rows than features, the centred rows are a root themselves, so the cost of wide features is bounded by the number of
rows. The estimate falls as rows are added (its bias is proportional to 1/N), most if there are few rows per feature:
compare only values of equal N.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpstrf
from threadpoolctl import threadpool_limits

from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores
from postprior.pipelines.threads import available


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian: mean (D,) and root (R, D) of the covariance, RᵀR = Σ."""

    mean: Floats
    root: Floats

    @classmethod
    def fit(cls, features: Floats, weights: Floats) -> "Gaussian":
        """Fit the weighted mean and unbiased covariance of features (N, D) with weights (N,), at least two rows."""
        kept = weights > 0
        share = weights[kept] / weights.sum()
        x = features[kept].astype(np.float64)
        mean = share @ x
        x = (x - mean) * np.sqrt(share / (1 - share @ share))[:, None]  # n equal weights: 1/√(n − 1)
        return cls(mean, x if len(x) <= x.shape[1] else root(x.T @ x))


def scores(real: Space, fake: Space) -> Scores:
    """Return the Frechet distance in one space."""
    return {"frechet_distance": frechet_distance(real.features, real.weights, fake.features, fake.weights)}


def frechet_distance(real: Floats, real_weights: Floats, fake: Floats, fake_weights: Floats) -> Floats:
    """Return d² (B,) of features (N, D) and (N', D) with weights (B, N) and (B, N').

    The value is NaN for a half-sample of one row, which has no covariance. Each half-sample is computed by one thread:
    small decompositions gain nothing from more threads, and sums would depend on their number.
    """

    def line(weights: tuple[Floats, Floats]) -> float:
        if min(np.count_nonzero(side) for side in weights) < 2:
            return math.nan
        return distance(Gaussian.fit(real, weights[0]), Gaussian.fit(fake, weights[1]))

    with threadpool_limits(1), ThreadPoolExecutor(available()) as pool:
        return np.array(list(pool.map(line, zip(real_weights, fake_weights, strict=True))))


def distance(first: Gaussian, second: Gaussian) -> float:
    """Return d² of two Gaussians."""
    product = first.root @ second.root.T
    small = product if len(product) < len(product.T) else product.T
    singular = np.sqrt(np.linalg.eigvalsh(small @ small.T).clip(0))
    spread = np.vdot(first.root, first.root) + np.vdot(second.root, second.root) - 2 * singular.sum()
    return max(0.0, float(((first.mean - second.mean) ** 2).sum() + spread))


def root(covariance: Floats) -> Floats:
    """Return R (rank, D) with RᵀR = Σ (D, D), by a pivoted Cholesky decomposition, which accepts any rank."""
    factor, pivots, rank, _ = dpstrf(covariance, lower=1)  # (L Lᵀ)_ij = Σ_pᵢpⱼ
    return np.triu(factor.T[:rank])[:, pivots.argsort()]
