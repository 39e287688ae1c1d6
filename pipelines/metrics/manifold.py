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


@dataclass(frozen=True)
class Balls:
    """Points (N, D), their weights (B, N) and the radii (B, N) of their balls in each half-sample; −1 if left out."""

    points: Floats
    weights: Floats
    radii: NDArray[np.float32]
    neighbours: int

    @classmethod
    def fit(cls, points: Floats, weights: Floats, neighbours: int) -> "Balls":
        """Balls to the k-th neighbour among the rows that each half-sample keeps; distances are computed once for all.

        Raises ValueError where a half-sample has no k-th neighbour.
        """
        fewest = int((weights > 0).sum(1).min())
        if fewest <= neighbours:
            need = f"{neighbours} neighbours need more than {neighbours} rows"
            raise ValueError(f"{need} in every half-sample, found {fewest}")
        within = _distances(points, points)
        radii = np.full(weights.shape, -1, np.float32)
        for radius, line in zip(radii, weights, strict=True):
            rows = np.flatnonzero(line)
            # place 0 is the row itself
            radius[rows] = np.partition(within[np.ix_(rows, rows)], neighbours)[:, neighbours]
        return cls(points, weights, radii, neighbours)


@dataclass(frozen=True)
class Manifold:
    """Precision, recall, density and coverage, one value a half-sample: each (B,)."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    density: NDArray[np.float64]
    coverage: NDArray[np.float64]


def manifold(real: Balls, fake: Balls) -> Manifold:
    """The four scores of the fake points against the real ones, half-sample by half-sample."""
    between = _distances(real.points, fake.points)  # (N, N')
    lines = []
    for real_weight, real_radius, fake_weight, fake_radius in zip(
        real.weights, real.radii, fake.weights, fake.radii, strict=True
    ):
        in_real = between <= real_radius[:, None]
        in_fake = between <= fake_radius
        holds_fake = in_real[:, fake_weight > 0].any(1)
        of_fakes = in_real.any(0) @ fake_weight, in_real.sum(0) @ fake_weight
        of_reals = in_fake.any(1) @ real_weight, holds_fake @ real_weight
        lines.append(of_fakes + of_reals)
    precision, density, recall, coverage = np.array(lines, np.float64).T
    reals, fakes = real.weights.sum(1), fake.weights.sum(1)
    return Manifold(precision / fakes, recall / reals, density / (fakes * real.neighbours), coverage / reals)


def _distances(left: Floats, right: Floats) -> NDArray[np.float32]:
    """Euclidean distances (N, N'), by differences: a copy is at distance 0 exactly."""
    import torch

    x, y = (torch.from_numpy(np.array(points, np.float32)) for points in (left, right))
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").numpy()
