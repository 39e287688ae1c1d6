"""How well the modalities of a set go together, without labels: pairings and correlations, beside real data's.

Canonical correlation (Hotelling 1936, https://doi.org/10.1093/biomet/28.3-4.321) finds directions a_k, b_k of the
features of two modalities whose projections correlate most, by the singular value decomposition

    Σ_xx^{−½} Σ_xy Σ_yy^{−½} = U diag(ρ) Vᵀ,    a_k = Σ_xx^{−½} u_k,    b_k = Σ_yy^{−½} v_k.

Covariances are shrunk towards spheres (Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4). The
directions are those of reference data; correlations along them are measured in other data, which they never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.coherence.pairing import Critic, fit_critic, pairing_auc
from postprior.pipelines.metrics.features.readings import Readings
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    SCORED,
    Floats,
    Missing,
    Scores,
    combined,
    correlation,
    estimate,
    too_few,
)

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("pairing_auc", "canonical_correlation", "incoherence", "canonical_preservation")
DIRECTIONS = 5  # of every pair of modalities, at most: the strongest ones
UNCORRELATED = Missing("the modalities of real rows correlate no more than by chance")


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


@dataclass(frozen=True)
class Alignment:
    """What was learned of real tuples, and what every set is measured by.

    Args:
        critic: tells their pairings from shuffled ones; None where nothing can be learned, see `unpaired`.
        directions: along which their modalities correlate, or None.
        seed: of the shuffles.
    """

    critic: Critic | None
    directions: Directions | None
    seed: int

    @classmethod
    def fit(cls, readings: Readings, seed: int) -> Alignment:
        """The alignment of the reference half."""
        if unpaired(readings):
            return cls(None, None, seed)
        return cls(fit_critic(readings.features, seed), Directions.fit(readings.features), seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """The critic's named tensors and description; nothing without one."""
        return ({}, None) if self.critic is None else self.critic.state()

    def score(self, readings: Readings, weights: Floats, real: Scores | None = None) -> Scores:
        """`pairing_auc` and `canonical_correlation` of readings under weights (1 + B, N), and both beside real data's.

        `incoherence` is the AUC of real data less that of the set; `canonical_preservation` the correlation over that
        of real data, where these correlate beyond noise. Decoded means are smoother than real data: they may be the
        more coherent, the first then below 0 and the second above 1. `real` are the scores of real data; None where
        these are.
        """
        if why := unpaired(readings):
            return dict.fromkeys(NAMES, why)
        assert self.critic is not None
        assert self.directions is not None
        auc = pairing_auc(self.critic, readings.features, weights, np.random.default_rng(self.seed))
        correlation = self.directions.mean(readings.features, weights)
        own: Scores = {"pairing_auc": auc, "canonical_correlation": correlation}
        of_real = own if real is None else real
        theirs = of_real["canonical_correlation"]
        told, preserved = estimate(theirs), combined(np.divide, correlation, theirs)
        if told.get("low") is None:
            preserved = Missing(told["why"])
        elif told["low"] <= 0:
            preserved = UNCORRELATED
        incoherence = combined(np.subtract, of_real["pairing_auc"], auc)
        return {**own, "incoherence": incoherence, "canonical_preservation": preserved}


def unpaired(readings: Readings) -> Missing | None:
    """Why nothing can be said of how modalities go together, if nothing can."""
    modalities = len(readings.features)
    return too_few(modalities, 2, "modalities") or too_few(len(readings), max(FEWEST, modalities), SCORED)


def _whiten(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, F) whitened by their shrunk covariance, and the matrix (F, F) that does so."""
    from sklearn.covariance import ledoit_wolf

    x = _centred(features)
    covariance, _ = ledoit_wolf(x, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    scale = np.divide(1, np.sqrt(values.clip(0)), where=values > 1e-12 * values.max(), out=np.zeros_like(values))
    back = vectors * scale @ vectors.T
    return x @ back, back


def _centred(features: Floats) -> NDArray[np.float64]:
    x = np.asarray(features, np.float64)
    return x - x.mean(0)
