"""α-precision, β-recall and authenticity (Alaa et al. 2022, https://arxiv.org/abs/2102.08921).

    P_α = share of fakes in the α-support of the reals: the ball about their mean that holds the share α of them
    R_β = share of reals in the β-support of the fakes that have a fake no farther than their k-th other real
    integrated: 1 − 2 ∫₀¹ |P_α − α| dα, 1 − 2 ∫₀¹ |R_β − β| dβ
    authenticity = share of fakes farther from the nearest real than that one from its nearest other real

Both curves of two samples of one distribution follow the diagonal. The paper learns an embedding whose typical points
lie about a centre (a one-class network); here the features are as the extractor gives them, and the centre is their
mean. It takes a real to be in the β-support if any fake of that support is in the ball to its k-th other real; in more
than a few dimensions such balls reach far inwards, and real data would score near 0: here the real itself must lie as
near the centre, too. The integrals are exact, as P and R are steps: that of |P_α − α| is the Wasserstein distance of
the α at which fakes enter to the uniform law.
"""

import numpy as np

from postprior.pipelines.metrics.fidelity.manifold import Balls, Distinct, by_balls, kept_neighbours
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores, weighted_mean

NAMES = ("alpha_precision", "beta_recall", "authenticity")


def scores(real: Space, fake: Space) -> Scores:
    """The three scores in one space."""
    return by_balls(NAMES, supports, real, fake)


def supports(real: Balls, fake: Balls) -> tuple[Floats, ...]:
    """The three scores of the fake points against the real ones, one value a half-sample: each (B,)."""
    precision = calibration(typicality(fake.points, real.points), fake.points.weights)
    (distance,), _ = kept_neighbours(real.points, fake.points, (0,))
    # the least β whose support has each real point
    needed = np.where(distance <= real.radii, typicality(real.points, fake.points), 1)
    recall = calibration(needed, real.points.weights)
    return precision, recall, authenticity(real, fake.points)


def typicality(points: Distinct, of: Distinct) -> Floats:
    """The share of the set `of` that lies nearer to its own mean than each of the points: (B, U)."""
    origin = of.values.mean(0, dtype=np.float64)
    centre = weighted_mean(of.values - origin, of.weights)  # (B, D)
    theirs, ours = (_from_centre(some.values - origin, centre) for some in (of, points))
    shares = np.empty(ours.shape)
    for share, known, asked, weight in zip(shares, theirs, ours, of.weights, strict=True):
        order = known.argsort()
        nearer = np.concatenate([[0], weight[order].cumsum()]) / weight.sum()
        share[:] = nearer[np.searchsorted(known[order], asked)]
    return shares


def calibration(entries: Floats, weights: Floats) -> Floats:
    """1 − 2 ∫₀¹ |F(α) − α| dα (B,), where F(α) is the weighted share of the entries (B, U) up to α; all in [0, 1].

    1 where they are uniform, 0 where all are 0 or all are 1.

    >>> calibration(np.array([[0.25, 0.75]]), np.ones((1, 2))).tolist()  # ∫ = 4 (1/4)²/2
    [0.75]
    """
    order = entries.argsort(1)
    entries, weights = np.take_along_axis(entries, order, 1), np.take_along_axis(weights, order, 1)
    total = weights.cumsum(1) / weights.sum(1, keepdims=True)
    above = total - entries
    below = np.concatenate([np.zeros((len(total), 1)), total[:, :-1]], axis=1) - entries
    return 1 - (above * np.abs(above) - below * np.abs(below)).sum(1)


def authenticity(real: Balls, points: Distinct) -> Floats:
    """The share (B,) of points farther from the nearest real row than that row from its nearest other one."""
    (distance,), (place,) = kept_neighbours(points, real.points, (0,))
    return points.share(distance > np.take_along_axis(real.nearest, place, 1))


def _from_centre(x: Floats, centre: Floats) -> Floats:
    """Squared distances (B, U) of points (U, D) to one centre a half-sample (B, D)."""
    return (x**2).sum(1) - 2 * centre @ x.T + (centre**2).sum(1)[:, None]
