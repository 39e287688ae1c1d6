"""Nearest neighbours by matrix products, and nearest records in several spaces at once.

    ‖x − t‖² = ‖x‖² − 2 xᵀt + ‖t‖²

This expansion ranks the targets t of a point x, but loses digits if two points almost coincide: distances that may be
small are computed from differences. In few dimensions thousands of points lie so close together that the product needs
double precision.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.metrics.statistics.intervals import Ints

JOINT, CODES = "joint", "codes"
ROWS = 1024  # maximum number of rows per block
READ = 2**24  # maximum number of values per block of rows
FLOATS = 2**23  # maximum number of distances in memory
NARROW = 256  # largest number of dimensions for which records are compared in double precision
TINY = 1e-12  # smallest squared distance that is distinguished from 0


def gaps(x: Tensor, targets: Tensor, norms: Tensor | None = None) -> Tensor:
    """Return ‖t‖² − 2 xᵀt (n, N), the squared distances minus ‖x‖²; `norms` replaces ‖t‖² if given.

    Shapes: points (n, D), targets (N, D), norms (N,).
    """
    return torch.addmm(targets.square().sum(1) if norms is None else norms, x, targets.T, alpha=-2)


def precise(x: Tensor, narrow: int) -> Tensor:
    """Return points (n, D) in double precision if they have at most `narrow` dimensions."""
    return x.double() if x.shape[1] <= narrow else x


def nearest(x: Tensor, targets: Tensor, count: int = 1) -> Tensor:
    """Return the indices (n, count) of the nearest targets (N, D) of each point (n, D), in no order."""
    blocks = x.split(max(1, FLOATS // len(targets)))
    indices = [gaps(block, targets).topk(count, largest=False, sorted=False).indices for block in blocks]
    return torch.cat(indices)


def kth_distance(x: Tensor, targets: Tensor, k: int) -> Tensor:
    """Return the distance (n,) of each point (n, D) to its k-th nearest target (N, D); the farthest one if N < k."""
    blocks, k = x.split(max(1, FLOATS // len(targets))), min(k, len(targets))
    squares = torch.cat([gaps(block, targets).kthvalue(k).values for block in blocks])
    return (squares + x.square().sum(1)).clamp_min(TINY).sqrt()


@dataclass(frozen=True)
class Points:
    """N rows in M spaces, read in blocks on demand; if M > 1, the joint space concatenates all M, and a pair two.

    A part is the vector of a row in one of the M spaces.
    """

    names: tuple[str, ...]  # of the spaces
    parts: tuple[Callable[[Ints], Tensor], ...]  # one function per space: row indices (n,) → vectors (n, F_m)
    observed: NDArray[np.bool_]  # (N, M); the vector of an unobserved part is arbitrary
    width: int  # Σ_m F_m
    pairs: Mapping[str, Sequence[int]] = field(default_factory=dict)  # further spaces, with the indices of their parts

    @classmethod
    def of_codes(cls, z: Tensor) -> Self:
        """Return codes (N, D) as the only space."""
        return cls((CODES,), (lambda rows: z[torch.from_numpy(rows)],), np.ones((len(z), 1), bool), z.shape[1])

    def __len__(self) -> int:
        return len(self.observed)

    @property
    def spaces(self) -> dict[str, list[int]]:
        """Name of each space → indices of its parts."""
        spaces = {name: [m] for m, name in enumerate(self.names)}
        joint = {JOINT: list(range(len(self.names)))} if len(self.names) > 1 else {}
        return spaces | joint | {pair: list(parts) for pair, parts in self.pairs.items()}

    def complete(self, space: str) -> Ints:
        """Return the rows (n,) in which every part of a space is observed."""
        return np.flatnonzero(self.observed[:, self.spaces[space]].all(1))

    def select(self, rows: Ints) -> Self:
        """Return the points of these rows."""

        def at(part: Callable[[Ints], Tensor], positions: Ints) -> Tensor:
            return part(rows[positions])

        return replace(self, parts=tuple(partial(at, part) for part in self.parts), observed=self.observed[rows])

    def blocks(self) -> Iterator[tuple[Ints, list[Tensor]]]:
        """Yield all rows block by block: their indices (n,) and parts (n, F_m)."""
        for rows in blocks(len(self), self.width):
            yield rows, [part(rows) for part in self.parts]


@dataclass(frozen=True)
class Closest:
    """The closest record of each row."""

    distance: NDArray[np.float64]  # (n,), NaN if the row lacks a part of the space, infinite if every record does
    record: Ints  # (n,), index of the record


def closest(rows: Points, records: Points, itself: Ints | None = None) -> dict[str, Closest]:
    """Return the closest record of every row, by space; row i is never matched with record `itself[i]`."""
    spaces = rows.spaces.values()
    blocks = [_closest(x, records, None if itself is None else itself[indices]) for indices, x in rows.blocks()]
    distance, record = (torch.cat(values, 1).numpy() for values in zip(*blocks, strict=True))  # (S, N)
    lacking = np.stack([~rows.observed[:, parts].all(1) for parts in spaces])
    distance[lacking] = np.nan
    return {name: Closest(*pair) for name, *pair in zip(rows.spaces, distance, record, strict=True)}


def _closest(x: list[Tensor], records: Points, itself: Ints | None) -> tuple[Tensor, Tensor]:
    """Return distances and records, both (S, n), for a block of rows with parts (n, F_m)."""
    spaces = list(records.spaces.values())
    least = torch.full((len(spaces), len(x[0])), torch.inf).double()
    record = torch.zeros(least.shape, dtype=torch.long)
    for candidates, t in records.blocks():
        squares = []
        for m, pair in enumerate(zip(x, t, strict=True)):
            points, targets = (precise(part, NARROW) for part in pair)
            lacking = ~torch.from_numpy(records.observed[candidates, m])
            relative = gaps(points, targets, targets.square().sum(1).masked_fill(lacking, torch.inf))
            squares.append(relative + points.square().sum(1, keepdim=True))
        if itself is not None:
            row, column = np.nonzero(itself[:, None] == candidates)
            for squared in squares:
                squared[row, column] = torch.inf
        for s, parts in enumerate(spaces):
            value, place = total([squares[m] for m in parts]).min(1)
            nearer = value < least[s]
            least[s, nearer], record[s, nearer] = value[nearer].double(), torch.from_numpy(candidates)[place[nearer]]
    distances = [
        total([(x[m] - records.parts[m](record[s].numpy())).double().square().sum(1) for m in parts]).sqrt()
        for s, parts in enumerate(spaces)
    ]
    return torch.stack(distances).where(least.isfinite(), torch.inf), record


def total(parts: list[Tensor]) -> Tensor:
    """Return the sum of tensors of the same shape."""
    return reduce(torch.add, parts)


def blocks(rows: int, width: int) -> list[Ints]:
    """Return the row indices in blocks of at most `READ` values."""
    step = max(1, min(ROWS, READ // width))
    return [np.arange(start, min(start + step, rows)) for start in range(0, rows, step)]
