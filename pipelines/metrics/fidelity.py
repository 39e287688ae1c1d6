"""Every distance and share between two sets of features, in one space: a modality's, or that of whole tuples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.frechet import frechet_distance
from pipelines.metrics.intervals import Floats
from pipelines.metrics.kernels import Kernels, kernel_distances
from pipelines.metrics.manifold import Balls, manifold
from pipelines.metrics.supports import supports

Scores = dict[str, NDArray[np.float64]]  # name → (1 + B,): the full sample, then its half-samples


@dataclass(frozen=True)
class Space:
    """What is computed of reference features (N, D) under weights (1 + B, N) once for all rows."""

    kernels: Kernels
    balls: Balls

    @classmethod
    def fit(cls, features: Floats, weights: Floats, neighbours: int) -> "Space":
        """The space of a modality's features, or of all of them side by side.

        Raises ValueError where a half-sample has no more rows than `neighbours`.
        """
        balls = Balls.fit(features, weights, neighbours)
        return cls(Kernels.fit(features, weights), balls)

    def fidelity(self, features: Floats, weights: Floats) -> Scores:
        """Scores of features (N', D) under weights (1 + B, N') against the reference, by name."""
        real, fake = self.kernels, Kernels.fit(features, weights, self.kernels.bandwidth)
        kernel_distance, mmd = kernel_distances(real, fake)
        balls = Balls.fit(features, weights, self.balls.neighbours)
        return {
            "frechet_distance": frechet_distance(real.features, real.weights, features, weights),
            "kernel_distance": kernel_distance,
            "mmd": mmd,
            **vars(manifold(self.balls, balls)),
            **vars(supports(self.balls, balls)),
        }


def cautions(spaces: dict[str, int], rows: int) -> list[str]:
    """What to know before reading the scores of so many rows, a sentence for each space that is too wide for them.

    `spaces` are numbers of features by name.
    """
    told = []
    for name, width in spaces.items():
        if rows <= 2 * width:
            singular = "the rows" if rows <= width else "half of them, as behind the intervals,"
            told.append(
                f"{name}: {rows} rows against {width} features. Covariances of {singular} are singular and Frechet "
                "distances far above those of more rows: compare them at equal numbers of rows, or kernel distances."
            )
    return told
