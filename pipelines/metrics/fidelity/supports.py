"""α-precision, β-recall and authenticity (Alaa et al. 2022, https://arxiv.org/abs/2102.08921).

    P_α = share of fake rows in the α-support of the real rows: the ball around their mean that contains a share α
    R_β = share of real rows in the β-support of the fake rows with a fake row no farther than their k-th other real row
    integrated: 1 − 2 ∫₀¹ |P_α − α| dα, 1 − 2 ∫₀¹ |R_β − β| dβ
    authenticity = share of fake rows farther from their nearest real row than that row is from its nearest other one

If both samples have the same distribution, both curves follow the diagonal. There are two differences to the paper. The
paper learns an embedding whose typical points lie around a centre (a one-class network); here the features are those of
the extractor, and the centre is their mean. The paper counts a real row as inside the β-support if any fake row of that
support is in the ball to its k-th other real row. In more than a few dimensions such balls reach far inwards, and real
data would score near 0; here the real row itself must also be as close to the centre. The integrals are exact, because
P and R are step functions: that of |P_α − α| is the Wasserstein distance between the values of α at which fake rows
enter and the uniform distribution.
"""

import numpy as np

from postprior.pipelines.metrics.fidelity.manifold import Balls, Distinct, ranked_neighbours, scores_from_balls
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.statistics.intervals import Floats, Scores, weighted_mean

NAMES = ("alpha_precision", "beta_recall", "authenticity")


def scores(real: Space, fake: Space) -> Scores:
    """Return the three scores in one space."""
    return scores_from_balls(NAMES, supports, real, fake)


def supports(real: Balls, fake: Balls) -> tuple[Floats, ...]:
    """Return the three scores (B,) of fake points against real points, one value per half-sample."""
    precision = calibration(typicality(fake.points, real.points), fake.points.weights)
    (distance,), _ = ranked_neighbours(real.points, fake.points, (0,))
    # the smallest β whose support contains each real point
    needed = np.where(distance <= real.radii, typicality(real.points, fake.points), 1)
    recall = calibration(needed, real.points.weights)
    return precision, recall, authenticity(real, fake.points)


def typicality(points: Distinct, reference: Distinct) -> Floats:
    """Return the share (B, U) of `reference` that is closer to the mean of `reference` than each of the points."""
    origin = reference.values.mean(0, dtype=np.float64)
    centre = weighted_mean(reference.values - origin, reference.weights)  # (B, D)
    reference_radii, radii = (_from_centre(rows.values - origin, centre) for rows in (reference, points))
    shares = np.empty(radii.shape)
    for share, sample, queries, weight in zip(shares, reference_radii, radii, reference.weights, strict=True):
        order = sample.argsort()
        nearer = np.concatenate([[0], weight[order].cumsum()]) / weight.sum()
        share[:] = nearer[np.searchsorted(sample[order], queries)]
    return shares


def calibration(entries: Floats, weights: Floats) -> Floats:
    """Return 1 − 2 ∫₀¹ |F(α) − α| dα (B,), where F(α) is the weighted share of entries (B, U) in [0, 1] up to α.

    The value is 1 if the entries are uniform, and 0 if all are 0 or all are 1.

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
    """Return the share (B,) of points farther from the nearest real row than that row is from its nearest other one."""
    (distance,), (place,) = ranked_neighbours(points, real.points, (0,))
    return points.share(distance > np.take_along_axis(real.nearest, place, 1))


def _from_centre(x: Floats, centre: Floats) -> Floats:
    """Return squared distances (B, U) of points (U, D) to one centre per half-sample (B, D)."""
    return (x**2).sum(1) - 2 * centre @ x.T + (centre**2).sum(1)[:, None]
