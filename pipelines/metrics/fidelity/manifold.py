"""Fidelity and diversity by nearest neighbours: a point's ball reaches to its k-th neighbour in its own set.

Precision and recall (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991): the share of fakes in the union
of the real balls, of reals in the union of the fake balls. Density and coverage (Naeem et al. 2020,
https://arxiv.org/abs/2002.09797): how many real balls hold a fake, over k; the share of real balls that hold any.
Balls are closed, and no row is its own neighbour.

One matrix product in float64 names the candidates, differences give their distances, so that a copy is at distance 0.
Rows that coincide are one point that counts more than once: columns of few categories would else be all pairs.
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
SPARE = 16  # neighbours looked at beside four times as many as are asked for
SLACK = 1e-10  # of squared norms, more than a product in float64 loses: what is so near a reach is measured


@dataclass(frozen=True)
class Distinct:
    """The U distinct rows of some features, and what each stands for in every half-sample."""

    values: Floats  # (U, D)
    weights: Floats  # (B, U), the summed weights of the rows that lie there
    rows: NDArray[np.int32]  # (B, U), how many of these rows are kept

    @classmethod
    def fit(cls, features: Floats, weights: Floats) -> "Distinct":
        """The points of features (N, D) under weights (B, N)."""
        values = np.ascontiguousarray(features + np.zeros((), features.dtype))  # −0 is 0
        coded = values.view(np.dtype((np.void, values.itemsize * values.shape[1]))).ravel()
        _, first, inverse = np.unique(coded, return_index=True, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        starts = np.searchsorted(inverse[order], np.arange(len(first)))
        weighed, kept = (
            np.add.reduceat(lines[:, order], starts, axis=1, dtype=dtype)
            for lines, dtype in ((weights, np.float64), (weights > 0, np.int32))
        )
        return cls(values[first], weighed, kept)

    def __len__(self) -> int:
        return len(self.values)

    def share(self, of: NDArray[Any]) -> Floats:
        """The weighted mean (B,) of what holds for a point in each half-sample, `of` (B, U)."""
        return (self.weights * of).sum(1) / self.weights.sum(1)


@dataclass(frozen=True)
class Balls:
    """Points, and balls about them in each half-sample."""

    points: Distinct
    radii: Floats  # (B, U), −1 if left out
    nearest: Floats  # (B, U), the distance to the nearest other row
    neighbours: int  # k

    @classmethod
    def fit(cls, space: Space) -> "Balls":
        """Balls to the k-th neighbour among the rows that each half-sample keeps; ValueError where one has none."""
        neighbours, fewest = space.neighbours, int((space.weights > 0).sum(1).min())
        if fewest <= neighbours:
            need = f"{neighbours} neighbours need more than {neighbours} rows"
            raise ValueError(f"{need} in every half-sample, found {fewest}")
        points = Distinct.fit(space.features, space.weights)
        (nearest, radii), _ = kept_neighbours(points, points, (1, neighbours))  # rank 0 is the row itself
        return cls(points, np.where(points.rows > 0, radii, -1), nearest, neighbours)


def by_balls(
    names: tuple[str, ...], of: Callable[[Balls, Balls], tuple[Floats, ...]], real: Space, fake: Space
) -> Scores:
    """Scores by name, which a function makes of real and fake balls.

    They are of the full sample alone where some half-sample has no k-th neighbour, and missing where that has none.
    """
    k, rows = real.neighbours, min(len(real), len(fake))
    if rows <= k:
        return dict.fromkeys(names, Missing(f"{k} neighbours need more than {k} rows, {rows} are there"))
    whole = all(int((space.weights > 0).sum(1).min()) > k for space in (real, fake))
    found = of(*((space if whole else space.known(full)).known(Balls.fit) for space in (real, fake)))
    left = (0, 0 if whole else len(fake.weights) - 1)
    return {name: np.pad(x, left, constant_values=np.nan) for name, x in zip(names, found, strict=True)}


def scores(real: Space, fake: Space) -> Scores:
    """The four scores in one space."""
    return by_balls(NAMES, manifold, real, fake)


def manifold(real: Balls, fake: Balls) -> tuple[Floats, ...]:
    """The four scores of the fake points against the real ones, one value a half-sample: each (B,)."""
    precise, holding, held = _held(real, fake.points)
    recalled, _, _ = _held(fake, real.points)
    density = held / (fake.points.weights.sum(1) * real.neighbours)
    return fake.points.share(precise), real.points.share(recalled), density, real.points.share(holding)


def _held(balls: Balls, points: Distinct) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """Whether a ball holds each point (B, P), whether each holds a kept one (B, U), and how many hold points (B,).

    In a half-sample balls only grow. What is in the least ball of a point is in all that are kept, and counted by
    products of matrices; only what is between the least and the greatest is compared with each.
    """
    inside, holding = np.zeros(points.rows.shape, bool), np.zeros(balls.radii.shape, bool)
    held = np.zeros(len(holding))
    known, kept = (torch.from_numpy(rows.astype(np.float32)) for rows in (balls.points.rows, points.rows))
    least = np.where(balls.radii < 0, np.inf, balls.radii).min(0)
    for rows, sure, (ball, point, distance) in within_reach(balls.points, least, balls.radii.max(0), points):
        matrix = sure.float()  # (n, P)
        number = (known[:, rows] @ matrix).numpy()
        inside |= number > 0
        held += (points.weights * number).sum(1)
        holding[:, rows] = (kept @ matrix.T > 0).numpy()
        for line, radii in enumerate(balls.radii):
            some = np.flatnonzero(distance <= radii[ball])
            balls_of, points_of = ball[some], point[some]
            inside[line, points_of] = True
            holding[line, balls_of[points.rows[line, points_of] > 0]] = True
            held[line] += balls.points.rows[line, balls_of] @ points.weights[line, points_of]
    return inside, holding, held


def kept_neighbours(points: Distinct, targets: Distinct, ranks: tuple[int, ...]) -> tuple[Floats, NDArray[np.int64]]:
    """Distance and place of the nearest kept row of the targets, of the next one …, by rank, which starts at 0.

    Distances and places are (R, B, U) for R ranks; of a point that a half-sample leaves out they mean nothing. Every
    half-sample needs more target rows than the greatest rank. Neighbours beyond a first list are rarely needed, where
    a half-sample leaves out most of it: such points get a longer one.
    """
    shape = (len(ranks), *points.rows.shape)
    distances, places = np.zeros(shape), np.zeros(shape, np.int64)
    missing, length = np.arange(len(points)), 4 * max(ranks) + SPARE
    while len(missing):
        length = min(length, len(targets))
        short = []
        for some in np.array_split(missing, -(-len(missing) * length // FLOATS)):
            near, where = _nearest(points.values[some], targets.values, length)
            steps = _steps(targets.rows, where, ranks)  # (R, B, n)
            within = ((steps < length) | (points.rows[:, some] == 0)).all((0, 1))
            steps, rows = steps[:, :, within], np.flatnonzero(within)
            steps = steps.clip(max=length - 1)
            distances[:, :, some[within]], places[:, :, some[within]] = near[rows, steps], where[rows, steps]
            short.append(some[~within])
        missing, length = np.concatenate(short), 4 * length
    return distances, places


def within_reach(
    points: Distinct, near: Floats, far: Floats, others: Distinct
) -> Iterator[tuple[slice, torch.Tensor, tuple[Ints, Ints, Floats]]]:
    """Which others (P,) lie within two reaches (U,) of each point, in blocks of points.

    A block has its places, whether each of the others is surely within the near reach (n, P), and the rest of those
    within the far one: their places among all points (K,) and among the others (K,), and distances (K,).
    """
    x, y = _centred(points.values, others.values)
    squares, half = x.square().sum(1), y.square().sum(1) / 2
    sure, possible = (
        (torch.from_numpy(reach**2) * (1 + slack) - squares * (1 - slack)) / 2
        for reach, slack in ((near, -SLACK), (far, SLACK))
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
    """Ascending distances (n, count) and places (n, count) of the nearest targets, of two as near the first."""
    places = nearest(*_centred(points, targets), count).numpy()
    left = np.repeat(np.arange(len(points)), count)
    distances = _distances(points, targets, left, places.ravel()).reshape(places.shape)
    order = np.lexsort((places, distances))
    return np.take_along_axis(distances, order, 1), np.take_along_axis(places, order, 1)


def _steps(rows: NDArray[np.int32], lists: Ints, ranks: tuple[int, ...]) -> NDArray[np.int64]:
    """How far down its list of places (n, L) each point finds the row of each rank, of those kept (B, U): (R, B, n)."""
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
    """Both sets in float64 about the mean of the targets: products of large numbers would lose small distances."""
    mean = targets.mean(0, dtype=np.float64)
    return torch.from_numpy(points - mean), torch.from_numpy(targets - mean)


def _distances(points: Floats, targets: Floats, left: Ints, right: Ints) -> Floats:
    """Euclidean distances (P,) of the pairs points[left], targets[right]."""
    found, step = np.empty(len(left)), max(1, FLOATS // points.shape[1])
    for start in range(0, len(left), step):
        some = slice(start, start + step)
        difference = points[left[some]].astype(np.float64) - targets[right[some]]
        found[some] = np.einsum("pd,pd->p", difference, difference)
    return np.sqrt(found)
