"""Fidelity and diversity by nearest neighbours: a point's ball reaches to its k-th neighbour in its own set.

Precision and recall (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991): the share of fakes in the union
of the real balls, of reals in the union of the fake balls. Density and coverage (Naeem et al. 2020,
https://arxiv.org/abs/2002.09797): how many real balls hold a fake, over k; the share of real balls that hold any.
Balls are closed, and no row is its own neighbour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.intervals import Floats
from pipelines.metrics.neighbours import Points, kept_neighbours, pairs_within


@dataclass(frozen=True)
class Balls:
    """Points, and in each half-sample the radii (B, U) of their balls; −1 if left out.

    `nearest` (B, U) is the distance to the nearest other row, `neighbours` the k of the balls.
    """

    points: Points
    radii: NDArray[np.float64]
    nearest: NDArray[np.float64]
    neighbours: int

    @classmethod
    def fit(cls, features: Floats, weights: Floats, neighbours: int) -> "Balls":
        """Balls of features (N, D) to the k-th neighbour among the rows that each half-sample of weights (B, N) keeps.

        Raises ValueError where a half-sample has no k-th neighbour.
        """
        fewest = int((weights > 0).sum(1).min())
        if fewest <= neighbours:
            need = f"{neighbours} neighbours need more than {neighbours} rows"
            raise ValueError(f"{need} in every half-sample, found {fewest}")
        points = Points.fit(features, weights)
        (nearest, radii), _ = kept_neighbours(points, points, (1, neighbours))  # rank 0 is the row itself
        return cls(points, np.where(points.rows > 0, radii, -1), nearest, neighbours)


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage, one value a half-sample: each (B,)."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    density: NDArray[np.float64]
    coverage: NDArray[np.float64]


def manifold(real: Balls, fake: Balls) -> Manifold:
    """The four scores of the fake points against the real ones, half-sample by half-sample."""
    precise, holding = np.zeros(fake.radii.shape, bool), np.zeros(real.radii.shape, bool)
    recalled, held = np.zeros(real.radii.shape, bool), np.zeros(len(real.radii))
    for ball, point, distance in pairs_within(real.points, real.radii.max(0), fake.points):
        for line, radii in enumerate(real.radii):
            inside = np.flatnonzero(distance <= radii[ball])
            balls, points = ball[inside], point[inside]
            precise[line, points] = True
            holding[line, balls[fake.points.rows[line, points] > 0]] = True
            held[line] += real.points.rows[line, balls] @ fake.points.weights[line, points]
    for ball, point, distance in pairs_within(fake.points, fake.radii.max(0), real.points):
        for line, radii in enumerate(fake.radii):
            recalled[line, point[distance <= radii[ball]]] = True
    density = held / (fake.points.weights.sum(1) * real.neighbours)
    return Manifold(
        fake.points.share(precise), real.points.share(recalled), density, real.points.share(holding)
    )
