"""Membership inference by a density ratio (DOMIAS: van Breugel et al. 2023, https://arxiv.org/abs/2302.12580).

    score(x) = log p_synthetic(x) − log p_auxiliary(x),    log p(x) = −d log r_k(x) + const.

The attacker has samples, and auxiliary rows from the same distribution as the training rows. The attacker infers that a
row is a training record if the density of samples around it is high relative to that of auxiliary rows. r_k is the
distance to the k-th neighbour (Loftsgaarden & Quesenberry 1965, https://doi.org/10.1214/aoms/1177700079): k = 1 among
samples, because a copy is one sample, and k = `NEIGHBOURS` among auxiliary rows, for a smooth estimate. Rows are
projected to principal components of the auxiliary rows. The AUC is that of training rows against held-out rows; it is
1/2 if samples reveal nothing.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, weighted_auc
from postprior.pipelines.metrics.statistics.neighbours import TINY, Points, gaps, kth_distance, precise, total

MIN_AUXILIARY = 2  # auxiliary rows that a space needs for principal components
NEIGHBOURS = 10  # k of the density of auxiliary rows
FLOATS = 2**25  # maximum number of values of the auxiliary rows
MOST = 2000  # maximum number of auxiliary rows, the size of the matrix that is decomposed
RANK = 1e-9  # relative to the largest variance; smaller variances are rounding errors
NARROW = 8  # largest number of dimensions for which distances use double precision
Components = dict[str, Tensor]  # by space, (n, d_s)


@dataclass(frozen=True)
class Side:
    """Rows of one side of the attack in one space: components (n, d), and their indices (n,) in the side's weights."""

    components: Tensor
    rows: Ints


Sides = dict[str, Side]  # by space


@dataclass(frozen=True)
class Projection:
    """Principal components of auxiliary rows, separately in each space."""

    centre: list[Tensor]  # mean (F_m,) of each part
    axes: dict[str, dict[int, Tensor]]  # by space, one matrix (F_m, d) per part m

    @classmethod
    def fit(cls, auxiliary: Points, dimensions: int) -> Self:
        """Fit components to at most `MOST` rows, in every space with at least `MIN_AUXILIARY` complete rows."""
        subset = auxiliary.select(evenly_spaced(len(auxiliary), min(MOST, max(2, FLOATS // auxiliary.width))))
        blocks, observed = [x for _, x in subset.blocks()], torch.from_numpy(subset.observed)
        parts = [torch.cat(part) for part in zip(*blocks, strict=True)]
        centre = [
            part[present].mean(0) if bool(present.any()) else part[0] * 0
            for part, present in zip(parts, observed.T, strict=True)
        ]
        axes = {}
        for space, members in auxiliary.spaces.items():
            rows = observed[:, members].all(1)
            if int(rows.sum()) >= MIN_AUXILIARY:
                centred = [parts[m][rows] - centre[m] for m in members]
                directions = _components(torch.cat(centred, 1), dimensions).split([x.shape[1] for x in centred])
                axes[space] = dict(zip(members, directions, strict=True))
        return cls(centre, axes)

    def __call__(self, x: list[Tensor]) -> Components:
        """Return components (n, d) in each space of rows with parts (n, F_m)."""
        centred = [part - centre for part, centre in zip(x, self.centre, strict=True)]
        return {space: total([centred[m] @ axes for m, axes in parts.items()]) for space, parts in self.axes.items()}

    def side(self, points: Points) -> Sides:
        """Return components (n, d) in each space of the rows that are complete there."""
        blocks = [self(x) for _, x in points.blocks()]
        complete = {space: points.complete(space) for space in self.axes}
        return {space: Side(torch.cat([x[space] for x in blocks])[rows], rows) for space, rows in complete.items()}


def _components(x: Tensor, dimensions: int) -> Tensor:
    """Return the directions (F, d) of largest variance of centred rows (n, F), from their Gram matrix (n, n)."""
    x = x.double()
    values, vectors = torch.linalg.eigh(x @ x.T)
    kept = (values > RANK * values[-1].clamp_min(TINY)).nonzero().squeeze(1)[-dimensions:].flip(0)
    return (x.T @ vectors[:, kept] / values[kept].sqrt()).float()


class Attack:
    """The attack in every space in which all sides have rows, on samples that arrive block by block.

    `members` are training rows and `non_members` are held-out rows. The attacker knows the `auxiliary` rows and that
    they are not training rows; their sources differ from those of the non-members.
    """

    def __init__(self, members: Sides, non_members: Sides, auxiliary: Sides) -> None:
        self.members, self.non_members = members, non_members
        self._candidates: Components = {}  # members, then non-members
        self._auxiliary_distance: Components = {}
        for space in members:
            sides = [by_space[space] for by_space in (members, non_members, auxiliary)]
            if all(len(side.rows) for side in sides):
                x = precise(torch.cat([side.components for side in sides[:2]]), NARROW)
                self._candidates[space] = x
                self._auxiliary_distance[space] = kth_distance(x, precise(sides[2].components, NARROW), NEIGHBOURS)
        self._least = {space: x.new_full((len(x),), torch.inf) for space, x in self._candidates.items()}

    def update(self, samples: Components) -> None:
        """Update the distances to the nearest sample with a block of samples (B, d)."""
        for space, x in self._candidates.items():
            least = self._least[space]
            torch.minimum(least, gaps(x, precise(samples[space], NARROW)).amin(1), out=least)

    def aucs(self, member_weights: Floats, non_member_weights: Floats) -> dict[str, Floats]:
        """Return the AUC (1 + B,) in each space, with weights of members (1 + B, n) and non-members (1 + B, m)."""
        aucs: dict[str, Floats] = {}
        for space, x in self._candidates.items():
            nearest = (self._least[space] + x.square().sum(1)).clamp_min(TINY).sqrt()
            score = (self._auxiliary_distance[space].log() - nearest.log()).double().numpy()
            members, non_members = self.members[space].rows, self.non_members[space].rows
            positive, negative = np.split(score, [len(members)])
            aucs[space] = weighted_auc(
                positive, negative, member_weights[:, members], non_member_weights[:, non_members]
            )
        return aucs


def evenly_spaced(rows: int, most: int) -> Ints:
    """Return all row indices, or `most` evenly spaced ones, because the order of rows may not be random."""
    return np.arange(rows) if rows <= most else np.arange(most) * rows // most
