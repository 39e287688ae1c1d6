"""Membership inference by a ratio of densities (DOMIAS: van Breugel et al. 2023, https://arxiv.org/abs/2302.12580).

    score(x) = log p_synthetic(x) − log p_reference(x),    log p(x) = −d log r_k(x) + const.

An attacker who has samples, and other rows of the same origin for reference, holds a row for a training record where
samples lie more densely about it than reference rows do. r_k is the distance to the k-th neighbour (Loftsgaarden &
Quesenberry 1965, https://doi.org/10.1214/aoms/1177700079): the first among the samples, for a copy is one sample, and
the `NEIGHBOURS`-th among the reference rows, a smooth estimate. Data are seen in principal components of the
reference rows. The AUC is that of training rows against held-out ones: 1/2 where samples tell nothing.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, weighted_auc
from postprior.pipelines.metrics.statistics.neighbours import TINY, Points, gaps, kth_distance, precise, total

REFERENCES = 2  # rows that a space needs, for components to say anything
NEIGHBOURS = 10  # of the density of reference rows
FLOATS = 2**25  # numbers that the reference rows may hold
MOST = 2000  # reference rows, at most: as many dimensions has the matrix that is decomposed
RANK = 1e-9  # of the largest variance: less is rounding
NARROW = 8  # dimensions up to which all is in double precision
Seen = dict[str, Tensor]  # by space, (n, d_s)


@dataclass(frozen=True)
class Side:
    """Rows of one side of the attack in one space: components (n, d), and their places (n,) in the side's weights."""

    seen: Tensor
    rows: Ints


Sides = dict[str, Side]  # by space


@dataclass(frozen=True)
class Projection:
    """Principal components of reference rows, in each space apart."""

    centre: list[Tensor]  # the means (F_m,) of each part
    axes: dict[str, dict[int, Tensor]]  # by space, one matrix (F_m, d) for each of its parts m

    @classmethod
    def fit(cls, reference: Points, dimensions: int) -> Self:
        """The components of `MOST` rows at the most, in the spaces that `REFERENCES` of them have."""
        some = reference.select(evenly(len(reference), min(MOST, max(2, FLOATS // reference.width))))
        blocks, observed = [x for _, x in some.blocks()], torch.from_numpy(some.observed)
        parts = [torch.cat(part) for part in zip(*blocks, strict=True)]
        centre = [
            part[seen].mean(0) if bool(seen.any()) else part[0] * 0
            for part, seen in zip(parts, observed.T, strict=True)
        ]
        axes = {}
        for space, members in reference.spaces.items():
            rows = observed[:, members].all(1)
            if int(rows.sum()) >= REFERENCES:
                chosen = [parts[m][rows] - centre[m] for m in members]
                found = _components(torch.cat(chosen, 1), dimensions).split([x.shape[1] for x in chosen])
                axes[space] = dict(zip(members, found, strict=True))
        return cls(centre, axes)

    def __call__(self, x: list[Tensor]) -> Seen:
        """Components (n, d) in each space of rows whose parts are (n, F_m)."""
        centred = [part - centre for part, centre in zip(x, self.centre, strict=True)]
        return {space: total([centred[m] @ axes for m, axes in of.items()]) for space, of in self.axes.items()}

    def side(self, points: Points) -> Sides:
        """Components (n, d) in each space of the rows that have it."""
        blocks = [self(x) for _, x in points.blocks()]
        having = {space: points.complete(space) for space in self.axes}
        return {of: Side(torch.cat([x[of] for x in blocks])[rows], rows) for of, rows in having.items()}


def _components(x: Tensor, dimensions: int) -> Tensor:
    """The directions (F, d) of largest variance of centred rows (n, F), from their products (n, n)."""
    x = x.double()
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = (values > RANK * values[-1].clamp_min(TINY)).nonzero().squeeze(1)[-dimensions:].flip(0)
    return (x.T @ vectors[:, kept] / values[kept].sqrt()).float()


class Attack:
    """The attack on samples that go by block by block, in every space that all sides have rows in.

    `members` are training rows, `others` held-out rows of other sources than those of `reference`, which the attacker
    knows to be no training rows.
    """

    def __init__(self, members: Sides, others: Sides, reference: Sides) -> None:
        self.members, self.others = members, others
        self._seen: Seen = {}
        self._known: Seen = {}
        for space in members:
            sides = [of[space] for of in (members, others, reference)]
            if all(len(side.rows) for side in sides):
                x = precise(torch.cat([side.seen for side in sides[:2]]), NARROW)
                self._seen[space] = x
                self._known[space] = kth_distance(x, precise(sides[2].seen, NARROW), NEIGHBOURS)
        self._least = {space: x.new_full((len(x),), torch.inf) for space, x in self._seen.items()}

    def see(self, samples: Seen) -> None:
        """Look at further samples (B, d)."""
        for space, x in self._seen.items():
            least = self._least[space]
            torch.minimum(least, gaps(x, precise(samples[space], NARROW)).amin(1), out=least)

    def aucs(self, member_weights: Floats, other_weights: Floats) -> dict[str, Floats]:
        """The AUC (1 + B,) in each space, under weights of the members (1 + B, n) and of the others (1 + B, m)."""
        found: dict[str, Floats] = {}
        for space, x in self._seen.items():
            nearest = (self._least[space] + x.square().sum(1)).clamp_min(TINY).sqrt()
            score = (self._known[space].log() - nearest.log()).double().numpy()
            members, others = self.members[space].rows, self.others[space].rows
            ours, theirs = np.split(score, [len(members)])
            found[space] = weighted_auc(ours, theirs, member_weights[:, members], other_weights[:, others])
        return found


def evenly(rows: int, most: int) -> Ints:
    """All rows, or so many of them at even steps: the order of rows may mean something."""
    return np.arange(rows) if rows <= most else np.arange(most) * rows // most
