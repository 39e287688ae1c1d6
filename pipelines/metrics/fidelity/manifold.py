"""Fidelity and diversity by nearest neighbours: a point's ball reaches to its k-th neighbour in its own set.

Precision is the share of fake points in the union of the real balls; recall is the share of real points in the union of
the fake balls (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991). Density is the mean number of real balls
that contain a fake point, divided by k; coverage is the share of real balls that contain any fake point (Naeem et al.
2020, https://arxiv.org/abs/2002.09797). Balls are closed, and no row is its own neighbour.

A matrix product in float64 selects the candidates; differences give their distances, so the distance of a copy is 0.
Rows that coincide are one point with a larger count: tables with few categories would otherwise have too many pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.metrics.fidelity.space import Space, full
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, Scores
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.statistics.neighbours import FLOATS, nearest

NAMES = ("precision", "recall", "density", "coverage")
SPARE = 16  # neighbours searched for in addition to four times the number needed
SLACK = 1e-10  # relative to squared norms, more than a product in float64 loses; closer pairs are measured


@dataclass(frozen=True)
class Distinct:
    """The U distinct rows of a set of features, and the rows that each represents in every half-sample."""

    values: Floats  # (U, D)
    weights: Floats  # (B, U), total weight of the rows at this point
    rows: NDArray[np.int32]  # (B, U), how many of these rows the half-sample keeps

    @classmethod
    def fit(cls, features: Floats, weights: Floats) -> "Distinct":
        """Group features (N, D) with weights (B, N) into distinct points."""
        values = np.ascontiguousarray(features + np.zeros((), features.dtype))  # −0 is 0
        coded = values.view(np.dtype((np.void, values.itemsize * values.shape[1]))).ravel()
        _, first, inverse = np.unique(coded, return_index=True, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        starts = np.searchsorted(inverse[order], np.arange(len(first)))
        totals, counts = (
            np.add.reduceat(lines[:, order], starts, axis=1, dtype=dtype)
            for lines, dtype in ((weights, np.float64), (weights > 0, np.int32))
        )
        return cls(values[first], totals, counts)

    def __len__(self) -> int:
        return len(self.values)

    def share(self, values: NDArray[Any]) -> Floats:
        """Return the weighted mean (B,) of values (B, U) of the points in each half-sample."""
        return (self.weights * values).sum(1) / self.weights.sum(1)


@dataclass(frozen=True)
class Balls:
    """Points with a ball around each in every half-sample."""

    points: Distinct
    radii: Floats  # (B, U), −1 if the half-sample leaves the point out
    nearest: Floats  # (B, U), the distance to the nearest other row
    neighbours: int  # k

    @classmethod
    def fit(cls, space: Space) -> "Balls":
        """Fit balls to the k-th neighbour in each half-sample; raise ValueError if one has too few rows."""
        neighbours, fewest = space.neighbours, int((space.weights > 0).sum(1).min())
        if fewest <= neighbours:
            raise ValueError(
                f"{neighbours} neighbours need more than {neighbours} rows in every half-sample, found {fewest}"
            )
        points = Distinct.fit(space.features, space.weights)
        (nearest, radii), _ = ranked_neighbours(points, points, (1, neighbours))  # rank 0 is the row itself
        return cls(points, np.where(points.rows > 0, radii, -1), nearest, neighbours)


def scores_from_balls(
    names: tuple[str, ...], function: Callable[[Balls, Balls], tuple[Floats, ...]], real: Space, fake: Space
) -> Scores:
    """Return scores by name, computed by `function` from real and fake balls.

    If some half-sample has too few rows for k neighbours, the half-samples are NaN; if the full sample has too few, the
    scores are missing.
    """
    k, rows = real.neighbours, min(len(real), len(fake))
    if rows <= k:
        return dict.fromkeys(names, Missing(f"{k} neighbours need more than {k} rows, found {rows}"))
    enough = all(int((space.weights > 0).sum(1).min()) > k for space in (real, fake))
    values = function(*((space if enough else space.cached(full)).cached(Balls.fit) for space in (real, fake)))
    padding = (0, 0 if enough else len(fake.weights) - 1)
    return {name: np.pad(x, padding, constant_values=np.nan) for name, x in zip(names, values, strict=True)}


def scores(real: Space, fake: Space) -> Scores:
    """Return the four scores in one space."""
    return scores_from_balls(NAMES, manifold, real, fake)


def manifold(real: Balls, fake: Balls) -> tuple[Floats, ...]:
    """Return the four scores (B,) of fake points against real points, one value per half-sample."""
    precise, covered, memberships = _membership(real, fake.points)
    recalled, _, _ = _membership(fake, real.points)
    density = memberships / (fake.points.weights.sum(1) * real.neighbours)
    return fake.points.share(precise), real.points.share(recalled), density, real.points.share(covered)


def _membership(balls: Balls, points: Distinct) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """Return whether any ball contains each point (B, P), whether each ball contains any point (B, U), and counts (B,).

    A count is the weighted number of pairs of a ball and a point inside it. Pairs within the smallest ball of a centre
    over all half-samples are counted for all half-samples by matrix products; only pairs between its smallest and its
    largest ball are compared with each radius.
    """
    inside, occupied = np.zeros(points.rows.shape, bool), np.zeros(balls.radii.shape, bool)
    counts = np.zeros(len(occupied))
    ball_rows, point_rows = (torch.from_numpy(rows.astype(np.float32)) for rows in (balls.points.rows, points.rows))
    least = np.where(balls.radii < 0, np.inf, balls.radii).min(0)
    for rows, certain, (ball, point, distance) in within_reach(balls.points, least, balls.radii.max(0), points):
        matrix = certain.float()  # (n, P)
        number = (ball_rows[:, rows] @ matrix).numpy()
        inside |= number > 0
        counts += (points.weights * number).sum(1)
        occupied[:, rows] = (point_rows @ matrix.T > 0).numpy()
        for line, radii in enumerate(balls.radii):
            pairs = np.flatnonzero(distance <= radii[ball])
            pair_balls, pair_points = ball[pairs], point[pairs]
            inside[line, pair_points] = True
            occupied[line, pair_balls[points.rows[line, pair_points] > 0]] = True
            counts[line] += balls.points.rows[line, pair_balls] @ points.weights[line, pair_points]
    return inside, occupied, counts


def ranked_neighbours(points: Distinct, targets: Distinct, ranks: tuple[int, ...]) -> tuple[Floats, NDArray[np.int64]]:
    """Return distances and indices of the kept target row of each rank; rank 0 is the nearest.

    Both results are (R, B, U) for R ranks; entries of points that a half-sample leaves out are arbitrary. Every
    half-sample needs more target rows than the greatest rank. The first list of neighbours is usually long enough; a
    point gets a longer list if a half-sample leaves out most of its neighbours.
    """
    shape = (len(ranks), *points.rows.shape)
    distances, places = np.zeros(shape), np.zeros(shape, np.int64)
    missing, length = np.arange(len(points)), 4 * max(ranks) + SPARE
    while len(missing):
        length = min(length, len(targets))
        short = []
        for block in np.array_split(missing, -(-len(missing) * length // FLOATS)):
            near, indices = _nearest(points.values[block], targets.values, length)
            steps = _steps(targets.rows, indices, ranks)  # (R, B, n)
            within = ((steps < length) | (points.rows[:, block] == 0)).all((0, 1))
            steps, rows = steps[:, :, within], np.flatnonzero(within)
            steps = steps.clip(max=length - 1)
            distances[:, :, block[within]], places[:, :, block[within]] = near[rows, steps], indices[rows, steps]
            short.append(block[~within])
        missing, length = np.concatenate(short), 4 * length
    return distances, places


def within_reach(
    points: Distinct, near: Floats, far: Floats, others: Distinct
) -> Iterator[tuple[slice, torch.Tensor, tuple[Ints, Ints, Floats]]]:
    """Yield the pairs of a point and one of the others (P,) within two radii (U,) of the point, in blocks of points.

    A block has the slice of its points; a matrix (n, P), true if the distance is certainly within the near radius; and
    the remaining pairs within the far radius: indices of the points (K,), indices of the others (K,), distances (K,).
    """
    x, y = _centred(points.values, others.values)
    squares, half = x.square().sum(1), y.square().sum(1) / 2
    sure, possible = (
        (torch.from_numpy(radius**2) * (1 + slack) - squares * (1 - slack)) / 2
        for radius, slack in ((near, -SLACK), (far, SLACK))
    )
    step = max(1, FLOATS // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        product = x[rows] @ y.T  # ‖x − y‖² ≤ r² where ‖y‖²/2 − xᵀy ≤ (r² − ‖x‖²)/2
        within = half * (1 + SLACK) - product <= sure[rows, None]
        perhaps = (half * (1 - SLACK) - product <= possible[rows, None]) & ~within
        left, right = perhaps.nonzero().numpy().T
        left += start
        distances = _distances(points.values, others.values, left, right)
        inside = distances <= far[left]
        yield rows, within, (left[inside], right[inside], distances[inside])


def _nearest(points: Floats, targets: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return ascending distances and indices, both (n, count), of the nearest targets; ties are ordered by index."""
    places = nearest(*_centred(points, targets), count).numpy()
    left = np.repeat(np.arange(len(points)), count)
    distances = _distances(points, targets, left, places.ravel()).reshape(places.shape)
    order = np.lexsort((places, distances))
    return np.take_along_axis(distances, order, 1), np.take_along_axis(places, order, 1)


def _steps(rows: NDArray[np.int32], lists: Ints, ranks: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the position (R, B, n) in the lists of indices (n, L) at which the kept row (B, U) of each rank occurs."""
    passed = np.zeros((len(rows), len(lists)), np.int32)
    steps = np.zeros((len(ranks), *passed.shape), np.int64)
    for places in lists.T:
        passed += rows[:, places]
        for step, rank in zip(steps, ranks, strict=True):
            step += passed <= rank
        if passed.min() > max(ranks):
            break
    return steps


def _centred(points: Floats, targets: Floats) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre both sets on the targets' mean, in float64: products of large numbers would lose small distances."""
    mean = targets.mean(0, dtype=np.float64)
    return torch.from_numpy(points - mean), torch.from_numpy(targets - mean)


def _distances(points: Floats, targets: Floats, left: Ints, right: Ints) -> Floats:
    """Return Euclidean distances (P,) of the pairs points[left], targets[right]."""
    distances, step = np.empty(len(left)), max(1, FLOATS // points.shape[1])
    for start in range(0, len(left), step):
        block = slice(start, start + step)
        difference = points[left[block]].astype(np.float64) - targets[right[block]]
        distances[block] = np.einsum("pd,pd->p", difference, difference)
    return np.sqrt(distances)
