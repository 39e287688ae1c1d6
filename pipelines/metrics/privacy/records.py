"""Rows and their closest training records, in the space of each modality, of all modalities, and of the codes.

A value f of a modality, as encoders read it, is scaled by moments of the training rows:

    x̃_f = (x_f − μ_f) / √(U Σ_{g ∈ u(f)} Var x_g)

The U units are the columns of a table and the entries of a vector, each with all of its classes; pixels, voxels and
tokens are of one kind and make one unit. The variances of a modality then sum to 1, so that modalities count alike
in the joint distance d² = Σ_m d_m², and so do the columns of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import Table, reader

JOINT, CODES = "joint", "codes"
ROWS = 1024  # rows of a block, at most
FLOATS = 2**24  # numbers that a block may hold
NARROW = 256  # dimensions up to which products are in double precision
CONSTANT = 1e-12  # variance under which a unit says nothing


@dataclass(frozen=True)
class Scale:
    """The standardisation of a modality: μ (F,), factors (F,), and which value each feature is read from (F,)."""

    modality: Modality
    mean: Tensor
    factor: Tensor
    source: Tensor

    @classmethod
    def fit(cls, data: Dataset, modality: Modality) -> Scale:
        """The moments of the rows that have the modality, of their observed cells."""
        read = reader(modality)
        if isinstance(read, Table):
            source = torch.cat([read.plain, read.counts, read.column])
        else:
            source = torch.arange(int(np.prod(modality.shape))).repeat(modality.classes or 1)
        identity = cls(modality, torch.zeros(len(source)), torch.ones(len(source)), source)
        place = [m.name for m in data.modalities].index(modality.name)
        rows = np.flatnonzero(data.observed[:, place])

        def mean_of(function: Callable[[Tensor], Tensor]) -> Tensor:
            total, count = torch.zeros(len(source)).double(), torch.zeros(len(source)).double()
            for block in _blocks(len(rows), len(source)):
                values, seen = identity.read(data, rows[block])
                total += (function(values.double()) * seen).sum(0)
                count += seen.sum(0)
            return total / count.clamp_min(1)

        mean = mean_of(lambda x: x)
        variance = mean_of(lambda x: (x - mean).square())
        alone = modality.kind in ("table", "vector")
        unit = source if alone else torch.zeros_like(source)
        total = torch.zeros(int(unit.max()) + 1).double().index_add(0, unit, variance)
        varies = total > CONSTANT
        factor = torch.where(varies, (total.clamp_min(CONSTANT) * varies.sum()).rsqrt(), 0)[unit]
        return cls(modality, mean.float(), factor.float(), source)

    def __call__(self, data: Dataset, rows: Ints) -> Tensor:
        """Scaled values (n, F) of some rows; a cell that was not observed stands at the mean."""
        values, seen = self.read(data, rows)
        return torch.where(seen, (values - self.mean) * self.factor, 0)

    def read(self, data: Dataset, rows: Ints) -> tuple[Tensor, Tensor]:
        """Values (n, F) as encoders read them, and which were observed (n, F)."""
        name = self.modality.name
        values = reader(self.modality)(torch.from_numpy(np.array(data.data[name][rows], np.float32))).flatten(
            1
        )
        if name not in data.cells:
            return values, torch.ones(1, len(self.source), dtype=torch.bool).expand_as(values)
        cells = torch.from_numpy(np.array(data.cells[name][rows])).flatten(1)
        return values, cells[:, self.source]


@dataclass(frozen=True)
class Points:
    """N rows in M spaces side by side, read when they are asked for; the joint space is that of all M, where M > 1.

    Args:
        names: of the spaces.
        parts: (n,) numbers of rows → (n, F_m), one function a space.
        observed: (N, M) bool; what a part gives where it is False means nothing.
        width: Σ_m F_m.
    """

    names: tuple[str, ...]
    parts: tuple[Callable[[Ints], Tensor], ...]
    observed: NDArray[np.bool_]
    width: int

    @classmethod
    def of_data(cls, data: Dataset, scales: tuple[Scale, ...]) -> Points:
        """The rows of a dataset, in the space of each modality."""
        # a modality may have the name of another space
        names = tuple(f"{m.name} (modality)" if m.name in (JOINT, CODES) else m.name for m in data.modalities)
        parts = tuple(partial(scale, data) for scale in scales)
        return cls(names, parts, np.array(data.observed), sum(len(scale.source) for scale in scales))

    @classmethod
    def of_codes(cls, z: Tensor) -> Points:
        """Codes (N, D), in a space of their own."""
        return cls(
            (CODES,), (lambda rows: z[torch.from_numpy(rows)],), np.ones((len(z), 1), bool), z.shape[1]
        )

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

    def select(self, rows: Ints) -> Points:
        """Some of the rows."""

        def at(part: Callable[[Ints], Tensor], some: Ints) -> Tensor:
            return part(rows[some])

        return Points(
            self.names, tuple(partial(at, part) for part in self.parts), self.observed[rows], self.width
        )

    def blocks(self) -> Iterator[tuple[Ints, list[Tensor]]]:
        """All rows, block by block: their numbers (n,) and parts (n, F_m)."""
        for rows in _blocks(len(self), self.width):
            yield rows, [part(rows) for part in self.parts]


@dataclass(frozen=True)
class Closest:
    """The distance (n,) of each row to its closest record, and which that is (n,).

    NaN for rows that lack a part of the space, infinite where every record does.
    """

    distance: NDArray[np.float64]
    record: Ints


def closest(rows: Points, records: Points, itself: Ints | None = None) -> dict[str, Closest]:
    """The closest record of every row, by space; `itself` (n,) is a record that the row must not be matched with.

    ‖x − t‖² = ‖x‖² − 2 xᵀt + ‖t‖² finds the closest by one matrix product a modality, and loses digits where two
    almost coincide: the distance itself is taken from the difference. In few dimensions thousands of records lie so
    close that the product needs double precision.
    """
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
            ours, theirs = (part.double() if part.shape[1] <= NARROW else part for part in pair)
            lacking = ~torch.from_numpy(records.observed[others, m])
            norms = theirs.square().sum(1).masked_fill(lacking, torch.inf)
            squares.append(torch.addmm(norms, ours, theirs.T, alpha=-2) + ours.square().sum(1, keepdim=True))
        if itself is not None:
            row, other = np.nonzero(itself[:, None] == others)
            for squared in squares:
                squared[row, other] = torch.inf
        for s, parts in enumerate(spaces):
            value, place = total([squares[m] for m in parts]).min(1)
            nearer = value < least[s]
            least[s, nearer], record[s, nearer] = (
                value[nearer].double(),
                torch.from_numpy(others)[place[nearer]],
            )
    distances = [
        total([(x[m] - records.parts[m](record[s].numpy())).double().square().sum(1) for m in parts]).sqrt()
        for s, parts in enumerate(spaces)
    ]
    return torch.stack(distances).where(least.isfinite(), torch.inf), record


def total(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return reduce(torch.add, parts)


def evenly(rows: int, most: int) -> Ints:
    """All rows, or so many of them at even steps: the order of rows may mean something."""
    return np.arange(rows) if rows <= most else np.arange(most) * rows // most


def _blocks(rows: int, width: int) -> list[Ints]:
    """Numbers of rows in blocks that hold `FLOATS` numbers at the most."""
    step = max(1, min(ROWS, FLOATS // width))
    return [np.arange(start, min(start + step, rows)) for start in range(0, rows, step)]
