"""Nearest neighbours, all of them by one product of matrices, and rows in several spaces side by side.

    ‖x − t‖² = ‖x‖² − 2 xᵀt + ‖t‖²

orders the targets t of a point x, and loses digits where two almost coincide: distances that may be small are taken
from differences. In few dimensions thousands of points lie so close that the product needs double precision.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.metrics.statistics.intervals import Ints

JOINT, CODES = "joint", "codes"
ROWS = 1024  # rows of a block, at most
READ = 2**24  # numbers that a block of rows may hold
FLOATS = 2**23  # distances held at once
NARROW = 256  # dimensions of a part up to which records are compared in double precision
TINY = 1e-12  # squared distance that is told from 0


def gaps(x: Tensor, targets: Tensor, norms: Tensor | None = None) -> Tensor:
    """‖t‖² − 2 xᵀt (n, N) of points (n, D) and targets (N, D): squared distances less ‖x‖²; `norms` stand for ‖t‖²."""
    return torch.addmm(targets.square().sum(1) if norms is None else norms, x, targets.T, alpha=-2)


def precise(x: Tensor, narrow: int) -> Tensor:
    """Points (n, D), in double precision where they have so few dimensions."""
    return x.double() if x.shape[1] <= narrow else x


def nearest(x: Tensor, targets: Tensor, count: int = 1) -> Tensor:
    """The places (n, count) of the nearest targets (N, D) of each point (n, D), in no order."""
    blocks = x.split(max(1, FLOATS // len(targets)))
    found = [gaps(some, targets).topk(count, largest=False, sorted=False).indices for some in blocks]
    return torch.cat(found)


def kth_distance(x: Tensor, targets: Tensor, k: int) -> Tensor:
    """The distance (n,) of each point (n, D) to its k-th nearest target (N, D), or to the farthest of fewer."""
    blocks, k = x.split(max(1, FLOATS // len(targets))), min(k, len(targets))
    squares = torch.cat([gaps(some, targets).kthvalue(k).values for some in blocks])
    return (squares + x.square().sum(1)).clamp_min(TINY).sqrt()


@dataclass(frozen=True)
class Points:
    """N rows in M spaces side by side, read when they are asked for; the joint space is that of all M, where M > 1."""

    names: tuple[str, ...]  # of the spaces
    parts: tuple[Callable[[Ints], Tensor], ...]  # (n,) numbers of rows → (n, F_m), one function a space
    observed: NDArray[np.bool_]  # (N, M); what a part gives where it is False means nothing
    width: int  # Σ_m F_m

    @classmethod
    def of_codes(cls, z: Tensor) -> Self:
        """Codes (N, D), in a space of their own."""
        return cls((CODES,), (lambda rows: z[torch.from_numpy(rows)],), np.ones((len(z), 1), bool), z.shape[1])

    def __len__(self) -> int:
        return len(self.observed)

    @property
    def spaces(self) -> dict[str, list[int]]:
        """Name → the parts that make the space."""
        spaces = {name: [m] for m, name in enumerate(self.names)}
        return spaces | ({JOINT: list(range(len(self.names)))} if len(self.names) > 1 else {})

    def having(self, space: str) -> Ints:
        """The rows (n,) that have every part of a space."""
        return np.flatnonzero(self.observed[:, self.spaces[space]].all(1))

    def select(self, rows: Ints) -> Self:
        """Some of the rows."""

        def at(part: Callable[[Ints], Tensor], some: Ints) -> Tensor:
            return part(rows[some])

        return replace(self, parts=tuple(partial(at, part) for part in self.parts), observed=self.observed[rows])

    def blocks(self) -> Iterator[tuple[Ints, list[Tensor]]]:
        """All rows, block by block: their numbers (n,) and parts (n, F_m)."""
        for rows in blocks(len(self), self.width):
            yield rows, [part(rows) for part in self.parts]


@dataclass(frozen=True)
class Closest:
    """The closest record of each row."""

    distance: NDArray[np.float64]  # (n,), NaN for rows that lack a part of the space, infinite where every record does
    record: Ints  # (n,)


def closest(rows: Points, records: Points, itself: Ints | None = None) -> dict[str, Closest]:
    """The closest record of every row, by space; `itself` (n,) is a record that the row must not be matched with."""
    spaces = rows.spaces.values()
    found = [_closest(x, records, None if itself is None else itself[some]) for some, x in rows.blocks()]
    distance, record = (torch.cat(parts, 1).numpy() for parts in zip(*found, strict=True))  # (S, N)
    lacking = np.stack([~rows.observed[:, parts].all(1) for parts in spaces])
    distance[lacking] = np.nan
    return {name: Closest(*pair) for name, *pair in zip(rows.spaces, distance, record, strict=True)}


def _closest(x: list[Tensor], records: Points, itself: Ints | None) -> tuple[Tensor, Tensor]:
    """Distances and records, both (S, n), of a block of rows, whose parts are (n, F_m)."""
    spaces = list(records.spaces.values())
    least = torch.full((len(spaces), len(x[0])), torch.inf).double()
    record = torch.zeros(least.shape, dtype=torch.long)
    for others, t in records.blocks():
        squares = []
        for m, pair in enumerate(zip(x, t, strict=True)):
            ours, theirs = (precise(part, NARROW) for part in pair)
            lacking = ~torch.from_numpy(records.observed[others, m])
            beyond = gaps(ours, theirs, theirs.square().sum(1).masked_fill(lacking, torch.inf))
            squares.append(beyond + ours.square().sum(1, keepdim=True))
        if itself is not None:
            row, other = np.nonzero(itself[:, None] == others)
            for squared in squares:
                squared[row, other] = torch.inf
        for s, parts in enumerate(spaces):
            value, place = total([squares[m] for m in parts]).min(1)
            nearer = value < least[s]
            least[s, nearer], record[s, nearer] = value[nearer].double(), torch.from_numpy(others)[place[nearer]]
    distances = [
        total([(x[m] - records.parts[m](record[s].numpy())).double().square().sum(1) for m in parts]).sqrt()
        for s, parts in enumerate(spaces)
    ]
    return torch.stack(distances).where(least.isfinite(), torch.inf), record


def total(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return reduce(torch.add, parts)


def blocks(rows: int, width: int) -> list[Ints]:
    """Numbers of rows in blocks that hold `READ` numbers at the most."""
    step = max(1, min(ROWS, READ // width))
    return [np.arange(start, min(start + step, rows)) for start in range(0, rows, step)]
