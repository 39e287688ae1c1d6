"""Fidelity and diversity by nearest neighbours: a point's ball reaches to its k-th neighbour in its own set.

Precision and recall (Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991): the share of fakes in the union
of the real balls, of reals in the union of the fake balls. Density and coverage (Naeem et al. 2020,
https://arxiv.org/abs/2002.09797): how many real balls hold a fake, over k; the share of real balls that hold any.
Balls are closed, and no row is its own neighbour.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.metrics.fidelity.balls import Balls, Distinct, by_balls, within_reach
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores

NAMES = ("precision", "recall", "density", "coverage")


def scores(real: Space, fake: Space) -> Scores:
    """The four scores in one space."""
    return by_balls(NAMES, manifold, real, fake)


def manifold(real: Balls, fake: Balls) -> tuple[Floats, ...]:
    """The four scores of the fake points against the real ones, one value a half-sample: each (B,)."""
    precise, holding, held = _held(real, fake.points)
    recalled, _, _ = _held(fake, real.points)
    density = held / (fake.points.weights.sum(1) * real.neighbours)
    return fake.points.share(precise), real.points.share(recalled), density, real.points.share(holding)


def _held(balls: Balls, points: Distinct) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
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
