"""Attributes of people: the columns of tables, the entries of vectors, and the label; and distances between their rows.

    d(x, y) = Σ_a d_a(x_a, y_a),    d_a = min(|x_a − y_a| / spread_a, 1) for numbers, and 1 where classes differ, else 0

This is the distance of Gower (1971, https://doi.org/10.2307/2528823). An attribute that the attacker does not know of a
person says nothing, and one that a synthetic row lacks never matches: its distance is 1. The spread of an attribute is
its range in the training rows without the outermost hundredth on either side, so that an outlier does not make all
others alike; if these quantiles coincide, it is the whole range.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.metrics.tables.columns import tables_of

MOST = 50  # maximum number of attributes; of more, so many are drawn at random
TAIL = 0.01  # share of the training rows on either side that the range leaves out
LABEL = -1  # place of the label, which belongs to no modality
BLOCK = 2**20  # distances in memory


@dataclass(frozen=True)
class Attributes:
    """A attributes that vary in the training rows."""

    names: tuple[str, ...]
    places: Ints  # (A,), the index of each one's modality, or LABEL
    columns: Ints  # (A,), its column there
    classes: NDArray[np.bool_]  # (A,), whether its values are classes, not numbers
    low: Floats  # (A,), the start of its range
    spread: Floats  # (A,), the length of its range; 1 for classes

    @classmethod
    def fit(cls, train: Dataset, rng: np.random.Generator) -> Self:
        """Find the attributes of training rows."""
        entries = list(_entries(train))
        names = tuple(name for name, *_ in entries)
        places, columns, classes = (np.array([entry[i] for entry in entries], int) for i in (1, 2, 3))
        every = cls(names, places, columns, classes.astype(bool), np.zeros(len(names)), np.ones(len(names)))
        every = every.select(np.sort(rng.permutation(len(names))[:MOST]))
        values = every.read(train)
        varying = np.flatnonzero([len(np.unique(x[~np.isnan(x)])) > 1 for x in values.T])
        found, values = every.select(varying), values[:, varying]
        ends = np.nanquantile(values, [0, TAIL, 1 - TAIL, 1], axis=0) if len(varying) else np.zeros((4, 0))
        low, high = np.where(ends[1] < ends[2], ends[1:3], ends[[0, 3]])
        low, spread = np.where(found.classes, 0.0, low), np.where(found.classes, 1.0, high - low)
        return replace(found, low=low, spread=spread)

    def __len__(self) -> int:
        return len(self.names)

    def select(self, chosen: Ints) -> Self:
        """Return some of the attributes."""
        names = tuple(self.names[a] for a in chosen)
        kinds = self.places[chosen], self.columns[chosen], self.classes[chosen]
        return type(self)(names, *kinds, self.low[chosen], self.spread[chosen])

    def read(self, rows: Dataset) -> Floats:
        """Return the values (N, A) of rows in the units of their files; a missing value is NaN, a class its index."""
        tables = {table.name: values for table, values in tables_of(rows)}
        values = np.empty((len(rows), len(self)))
        for place in np.unique(self.places):
            own = np.flatnonzero(self.places == place)
            columns = self.columns[own]
            if place == LABEL:
                labels = np.full(len(rows), -1) if rows.labels is None else np.asarray(rows.labels)
                found = np.where(labels < 0, np.nan, labels)[:, None]
            elif (name := rows.modalities[place].name) in tables:
                found = tables[name][:, columns]
            else:
                found = np.where(rows.missing(name)[:, columns], np.nan, rows.data[name][:, columns])
            values[:, own] = found
        return np.where(self.classes, np.rint(values), values)

    def scaled(self, values: Floats) -> Tensor:
        """Return values (N, A) in units of the spreads."""
        return torch.from_numpy(((values - self.low) / self.spread).astype(np.float32))


def _entries(train: Dataset) -> Iterator[tuple[str, int, int, bool]]:
    """Yield the name of each attribute, the index of its modality, its column there, and whether it has classes."""
    several = sum(modality.tabular for modality in train.modalities) > 1
    for place, modality in enumerate(train.modalities):
        if not modality.tabular:
            continue
        likelihoods = [column.likelihood for column in modality.columns] or [modality.likelihood] * modality.shape[0]
        names = [column.name for column in modality.columns] or [str(i) for i in range(modality.shape[0])]
        for column, (name, likelihood) in enumerate(zip(names, likelihoods, strict=True)):
            own = train.data[modality.name][:, column]
            binary = likelihood == "bernoulli" and bool(np.isin(own, (0, 1)).all())
            title = f"{name} ({modality.title})" if several or not modality.columns else name
            yield title, place, column, binary or likelihood == "categorical"
    if train.labels is not None and any(modality.tabular for modality in train.modalities):
        yield "the label", LABEL, 0, True


def distances(people: Tensor, records: Tensor, classes: bool) -> Tensor:
    """Return the distances (n, N) of one scaled attribute of people (n,) to records (N,)."""
    x, y = people[:, None], records.nan_to_num(torch.inf)
    apart = (x != y).float() if classes else (x - y).abs_().clamp_(max=1.0)
    return apart.masked_fill_(x.isnan(), 0.0)


def total_distances(people: Tensor, records: Tensor, classes: Sequence[bool] | NDArray[np.bool_]) -> Tensor:
    """Return the distances (n, N) of people (n, A) to records (N, A), both scaled, over all attributes."""
    total = people.new_zeros(len(people), len(records))
    for x, y, own in zip(people.T, records.T, classes, strict=True):
        total += distances(x, y, bool(own))
    return total


def in_blocks(people: Tensor, records: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield the places of people (n, A) and their values, in blocks of which all distances fit into memory."""
    step = max(1, BLOCK // max(records, 1))
    for start in range(0, len(people), step):
        yield slice(start, start + step), people[start : start + step]
