"""Principal components of vectors, which stand for them where cells of tables beside them are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import input_layer

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

MOST = 16
"""Components of a vector, at most."""


@dataclass(frozen=True, eq=False)
class VectorComponents:
    """Maps vectors to the principal components of their features, as encoders read them, in training rows."""

    modalities: Mapping[str, tuple[Modality, PCA]]

    @classmethod
    def fit(cls, vectors: Sequence[Modality], values: Mapping[str, np.ndarray]) -> Self:
        """Learn the components of vectors from complete training rows, values[m] (N, X)."""
        from sklearn.decomposition import PCA

        found = {}
        for m in vectors:
            x = _features(m, values[m.name])
            solver = "full" if min(x.shape) <= 2 * MOST else "randomized"
            found[m.name] = m, PCA(min(MOST, *x.shape), svd_solver=solver, random_state=0).fit(x)
        return cls(found)

    def __call__(self, values: Mapping[str, np.ndarray], rows: int) -> Floats:
        """Return the components (B, C) of B = `rows` complete rows, values[m] (B, X); C is 0 without vectors."""
        parts = [pca.transform(_features(m, values[name])) for name, (m, pca) in self.modalities.items()]
        return np.concatenate([np.zeros((rows, 0)), *parts], 1)


def _features(modality: Modality, values: np.ndarray) -> np.ndarray:
    """Return what encoders read of complete rows (B, X): counts as log(1 + x)."""
    return (
        input_layer(replace(modality, partial=False))(torch.from_numpy(np.asarray(values, np.float32)))
        .flatten(1)
        .numpy()
    )
