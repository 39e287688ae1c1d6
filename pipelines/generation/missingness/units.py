"""Units of missingness: the modalities of a row, and groups of cells that rows lack together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.arrays import CHUNK, Rows
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.pipelines.settings.names import listed
from postprior.stage1_vae.modalities import Modality

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """The U units that rows of M modalities may lack: the modalities, then groups of cells.

    A group holds cells of one modality. Every training row that has the modality lacks all of them or none.

    Attributes:
        modalities: the M modalities.
        owner: (U,), the modality of each unit; the first M units are the modalities themselves.
        cells: cells[m] (*shape), the unit of each cell, −1 if no training row lacks it; only modalities that lack
            cells.
    """

    modalities: tuple[Modality, ...]
    owner: Ints
    cells: dict[str, Ints]

    def __post_init__(self) -> None:
        M, U = len(self.modalities), len(self.owner)
        shapes = {m.name: m.shape for m in self.modalities}
        if U < M or self.owner[:M].tolist() != [*range(M)] or not {*self.owner.tolist()} <= {*range(M)}:
            raise ValueError("owner of units: expected modalities, each of which owns itself")
        for name, units in self.cells.items():
            if units.shape != shapes.get(name) or units.dtype.kind != "i" or units.min() < -1 or units.max() >= U:
                raise ValueError(f"units of {name}: expected a unit for each cell, or −1")

    @classmethod
    def of(cls, data: Dataset, rows: Ints) -> tuple[Self, Flags]:
        """Return the units of training rows (N,), and which of them each row lacks (N, U).

        A row without a modality lacks no group of its cells.
        """
        observed = data.observed[rows]
        owner, cells, absent = [*range(len(data.modalities))], {}, [~observed]
        for m, modality in enumerate(data.modalities):
            if modality.name in data.cells:
                packed = np.concatenate([*_packed(observed[:, m], data.cells[modality.name], rows)])  # (N / 8, cells)
                lacked = np.flatnonzero(packed.any(0))
                columns = np.ascontiguousarray(packed[:, lacked].T).view(f"V{len(packed)}")[:, 0]
                _, first, group = np.unique(columns, return_index=True, return_inverse=True)
                places = np.full(packed.shape[1], -1)
                places[lacked] = len(owner) + group
                cells[modality.name] = places.reshape(modality.shape)
                absent.append(np.unpackbits(packed[:, lacked[first]], axis=0, count=len(rows)).astype(bool))
                owner += [m] * len(first)
        return cls(data.modalities, np.array(owner), cells), np.concatenate(absent, axis=1)

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def groups(self) -> Ints:
        """The units that are groups of cells."""
        return np.arange(len(self.modalities), len(self))

    def applicable(self, absent: Flags) -> Flags:
        """Return which units (N, U) rows that lack these units could lack: modalities, and cells of present ones."""
        modalities = np.ones((len(absent), len(self.modalities)), bool)
        return np.concatenate([modalities, ~absent[:, self.owner[self.groups]]], axis=1)

    def observed(self, absent: Flags) -> tuple[Flags, dict[str, Flags]]:
        """Return the mask (n, M), and the observed cells by modality, of rows that lack these units (n, U)."""
        mask = ~absent[:, : len(self.modalities)]
        present = np.append(~absent, np.ones((len(absent), 1), bool), axis=1)  # the last column is unit −1
        names = [m.name for m in self.modalities]
        cells = {name: present[:, units] for name, units in self.cells.items()}
        return mask, {
            name: seen & mask[:, names.index(name)].reshape(-1, *[1] * (seen.ndim - 1)) for name, seen in cells.items()
        }

    def states(self, unit: int, rows: Dataset) -> tuple[Flags, Flags]:
        """Return which rows (n,) lack a unit that they could have, and which have it."""
        owner = self.owner[unit]
        could = rows.observed[:, owner]
        if unit == owner:
            return ~could, could
        name = self.modalities[owner].name
        place = np.flatnonzero(self.cells[name] == unit)[0]
        missing = rows.missing(name).reshape(len(rows), -1)[:, place]
        return could & missing, ~missing

    def unit_of(self, name: str, column: int) -> int:
        """Return the unit of a column of a table, −1 if no training row lacks it."""
        return int(self.cells[name][column]) if name in self.cells else -1

    def title(self, unit: int) -> str:
        """Name a unit for readers: a modality, columns of a table, or a number of values."""
        modality = self.modalities[self.owner[unit]]
        if unit < len(self.modalities):
            return modality.title
        here = np.flatnonzero(self.cells[modality.name] == unit)
        return (
            listed(modality.columns[j].name for j in here)
            if modality.columns
            else f"{len(here)} values of {modality.title}"
        )


def _packed(present: Flags, cells: Rows, rows: Ints) -> Iterator[NDArray[np.uint8]]:
    """Yield the cells that rows (N,) lack although they have the modality, as bits: (N / 8, cells) in pieces."""
    step = max(1, CHUNK // max(1, int(np.prod(cells.shape[1:]))) // 8) * 8
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        lacking = ~np.asarray(cells[rows[piece]]).reshape(len(rows[piece]), -1)
        yield np.packbits(lacking & present[piece, None], axis=0)
