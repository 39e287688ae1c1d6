"""Every distance and share between two sets of features, in one space: a modality's, or that of whole tuples."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from postprior.pipelines.metrics.fidelity.balls import Balls
from postprior.pipelines.metrics.fidelity.frechet import frechet_distance
from postprior.pipelines.metrics.fidelity.kernels import Kernels, kernel_distances
from postprior.pipelines.metrics.fidelity.manifold import Manifold, manifold
from postprior.pipelines.metrics.fidelity.supports import Supports, supports
from postprior.pipelines.metrics.statistics.intervals import FEWEST, Floats, Missing, Scores, unscored

DISTANCES = ("frechet_distance", "kernel_distance", "mmd")
SHARES = tuple(field.name for kind in (Manifold, Supports) for field in fields(kind))


@dataclass(frozen=True)
class Space:
    """Reference features (N, D) under weights (1 + B, N), and what is computed of them once for all rows.

    They are a modality's, or all of them side by side.
    """

    features: Floats
    weights: Floats
    neighbours: int

    @cached_property
    def kernels(self) -> Kernels:
        """Their kernels."""
        return Kernels.fit(self.features, self.weights)

    @cached_property
    def balls(self) -> Balls:
        """Their balls."""
        return Balls.fit(self.features, self.weights, self.neighbours)

    def fidelity(self, features: Floats, weights: Floats) -> Scores:
        """Scores of features (N', D) under weights (1 + B, N') against the reference, by name."""
        rows = min(len(self.features), len(features))
        if few := unscored(rows):
            return dict.fromkeys((*DISTANCES, *SHARES), few)
        fake = Kernels.fit(features, weights, self.kernels.bandwidth)
        frechet = frechet_distance(self.features, self.weights, features, weights)
        distances = (frechet, *kernel_distances(self.kernels, fake))
        return {**dict(zip(DISTANCES, distances, strict=True)), **self._shares(features, weights)}

    def _shares(self, features: Floats, weights: Floats) -> Scores:
        """Scores by nearest neighbours: of the full sample alone where some half-sample has no k-th neighbour."""
        k = self.neighbours
        rows = min(len(self.features), len(features))
        if rows <= k:
            return dict.fromkeys(SHARES, Missing(f"{k} neighbours need more than {k} rows, {rows} are there"))
        whole = all(int((of > 0).sum(1).min()) > k for of in (self.weights, weights))
        lines = len(weights) if whole else 1
        real = self.balls if whole else Balls.fit(self.features, self.weights[:1], k)
        fake = Balls.fit(features, weights[:lines], k)
        found = {**vars(manifold(real, fake)), **vars(supports(real, fake))}
        left = (0, len(weights) - lines)
        return {name: np.pad(values, left, constant_values=np.nan) for name, values in found.items()}


def cautions(spaces: dict[str, int], rows: int) -> list[str]:
    """What to know before reading the scores of so many rows, a sentence for each space that is too wide for them.

    `spaces` are numbers of features by name. Too few rows to score need no caution.
    """
    told: list[str] = []
    if rows < FEWEST:
        return told
    for name, width in spaces.items():
        if rows <= 2 * width:
            singular = "the rows" if rows <= width else "half of them, as behind the intervals,"
            told.append(
                f"{name}: {rows} rows against {width} features. Covariances of {singular} are singular and Frechet "
                "distances far above those of more rows: compare them at equal numbers of rows, or kernel distances."
            )
    return told
