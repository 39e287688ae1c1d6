"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500).

    d² = ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

It needs more rows than features, and falls as rows are added (its bias goes as 1/N): compare only values of equal N.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.metrics.intervals import Floats, weighted_mean

FLOATS = 2**23  # numbers of the products x_i x_j held at once
JITTER = 1e-12  # of the mean variance, added to the diagonal: a constant feature has a root too


@dataclass(frozen=True)
class Gaussians:
    """One Gaussian a half-sample: means (B, d) and covariances (B, d, d)."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def fit(cls, features: Floats, weights: Floats) -> "Gaussians":
        """Weighted means and unbiased covariances of features (N, d) under weights (B, N).

        Raises ValueError where the full sample has no more rows than features: its covariance would be singular.
        """
        rows, width = features.shape
        if rows <= width:
            need = f"a Frechet distance in {width} dimensions needs more than {width} rows"
            raise ValueError(f"{need}, found {rows}")
        origin = features.mean(0, dtype=np.float64)
        x, total = features - origin, weights.sum(1)
        step = max(1, FLOATS // (rows * width))
        columns = (x[:, start : start + step, None] * x[:, None, :] for start in range(0, width, step))
        second = np.concatenate([weighted_mean(products, weights) for products in columns], axis=1)
        mean = weighted_mean(x, weights)
        effective = total**2 / (weights**2).sum(1)  # as many rows of equal weight would tell as much
        covariance = second - mean[:, :, None] * mean[:, None, :]
        return cls(mean + origin, covariance * (effective / (effective - 1))[:, None, None])

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """R (B, d, d) with R Rᵀ = Σ, triangular; computed once for all that is compared with these Gaussians."""
        width = self.mean.shape[1]
        jitter = JITTER * self.trace / width + np.finfo(np.float64).tiny
        covariance = self.covariance + jitter[:, None, None] * np.eye(width)
        return torch.linalg.cholesky(torch.from_numpy(covariance)).numpy()

    @property
    def trace(self) -> NDArray[np.float64]:
        """Tr Σ (B,)."""
        return np.trace(self.covariance, axis1=1, axis2=2)


def frechet_distance(real: Gaussians, fake: Gaussians) -> NDArray[np.float64]:
    """d² (B,), Gaussian by Gaussian: R₁ᵀ Σ₂ R₁ is symmetric and has the eigenvalues of Σ₁^½ Σ₂ Σ₁^½."""
    crossed = torch.from_numpy(real.root.transpose(0, 2, 1) @ fake.covariance @ real.root)
    roots = torch.linalg.eigvalsh(crossed).clamp_min(0).sqrt().sum(1).numpy()
    return (((real.mean - fake.mean) ** 2).sum(1) + real.trace + fake.trace - 2 * roots).clip(0)
