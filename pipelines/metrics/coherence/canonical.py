"""Coherence without labels: are directions that go together in real data still correlated?

Canonical correlation (Hotelling 1936, https://doi.org/10.1093/biomet/28.3-4.321) finds directions a_k, b_k of the
features of two modalities whose projections correlate most, by the singular value decomposition

    Σ_xx^{−½} Σ_xy Σ_yy^{−½} = U diag(ρ) Vᵀ,    a_k = Σ_xx^{−½} u_k,    b_k = Σ_yy^{−½} v_k.

Covariances are shrunk towards spheres (Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4). The
directions are those of reference data; correlations along them are measured in other data, which they never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import Floats, correlation

DIRECTIONS = 5  # of every pair of modalities, at most: the strongest ones


@dataclass(frozen=True)
class Directions:
    """Canonical directions of every pair of modalities.

    Args:
        pairs: the P pairs (m, n) of modalities, m < n.
        left: P × (F_m, K), those of the first modality of a pair, the strongest correlation first.
        right: P × (F_n, K), those of the second.
    """

    pairs: tuple[tuple[int, int], ...]
    left: tuple[NDArray[np.float64], ...]
    right: tuple[NDArray[np.float64], ...]

    @classmethod
    def fit(cls, features: tuple[Floats, ...]) -> Directions:
        """The directions of features M × (N, F_m) of real tuples, M ≥ 2."""
        if len(features) < 2:
            raise ValueError(f"canonical correlations are of at least two modalities, found {len(features)}")
        whitened = [_whiten(array) for array in features]
        pairs = tuple(combinations(range(len(features)), 2))
        left, right = [], []
        for m, n in pairs:
            (x, back), (y, forth) = whitened[m], whitened[n]
            u, _, v = np.linalg.svd(x.T @ y / len(x), full_matrices=False)
            left.append(back @ u[:, :DIRECTIONS])
            right.append(forth @ v[:DIRECTIONS].T)
        return cls(pairs, tuple(left), tuple(right))

    def correlations(self, features: tuple[Floats, ...], weights: Floats) -> list[NDArray[np.float64]]:
        """Correlations P × (1 + B, K) of features M × (N, F_m) along the directions; weights (1 + B, N).

        A direction along which a set does not vary has correlation 0.
        """
        return [
            correlation(_centred(features[m]) @ a, _centred(features[n]) @ b, weights)
            for (m, n), a, b in zip(self.pairs, self.left, self.right, strict=True)
        ]

    def mean(self, features: tuple[Floats, ...], weights: Floats) -> NDArray[np.float64]:
        """Their mean over the directions of a pair and over pairs, (1 + B,)."""
        return np.mean([pair.mean(1) for pair in self.correlations(features, weights)], axis=0)


def _whiten(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, F) whitened by their shrunk covariance, and the matrix (F, F) that does so."""
    from sklearn.covariance import ledoit_wolf

    x = _centred(features)
    covariance, _ = ledoit_wolf(x, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    scale = np.divide(
        1, np.sqrt(values.clip(0)), where=values > 1e-12 * values.max(), out=np.zeros_like(values)
    )
    back = vectors * scale @ vectors.T
    return x @ back, back


def _centred(features: Floats) -> NDArray[np.float64]:
    x = np.asarray(features, np.float64)
    return x - x.mean(0)
