"""Frechet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500).

    d² = ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

It needs more rows than features, and falls as rows are added (its bias goes as 1/N): compare only values of equal N.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.intervals import Floats, weighted_mean


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
        x = features - origin
        mean, total = weighted_mean(x, weights), weights.sum(1)
        second = (
            np.stack([(x[line > 0].T * line[line > 0]) @ x[line > 0] for line in weights])
            / total[:, None, None]
        )
        effective = total**2 / (weights**2).sum(1)  # as many rows of equal weight would tell as much
        covariance = second - mean[:, :, None] * mean[:, None, :]
        return cls(mean + origin, covariance * (effective / (effective - 1))[:, None, None])

    @cached_property
    def root(self) -> NDArray[np.float64]:
        """R (B, d, d) with R Rᵀ = Σ; computed once, for the reference of many rows."""
        values, vectors = np.linalg.eigh(self.covariance)
        return vectors * np.sqrt(values.clip(0))[:, None, :]

    @property
    def trace(self) -> NDArray[np.float64]:
        return np.trace(self.covariance, axis1=1, axis2=2)


def frechet_distance(real: Gaussians, fake: Gaussians) -> NDArray[np.float64]:
    """d² (B,), Gaussian by Gaussian, from the eigenvalues of the symmetric R₁ᵀ Σ₂ R₁: covariances may be singular."""
    crossed = np.linalg.eigvalsh(real.root.transpose(0, 2, 1) @ fake.covariance @ real.root)
    squared = (
        ((real.mean - fake.mean) ** 2).sum(1) + real.trace + fake.trace - 2 * np.sqrt(crossed.clip(0)).sum(1)
    )
    return squared.clip(0)
