"""Linkability: "these two records are of the same person" (Giomi et al. 2023).

The attributes of people are in two files. The attacker has a record of each file and the synthetic rows, which have all
attributes. The two records are linked if a synthetic row is among the K nearest ones of both. The success rate is the
share of people whose own two records are linked. Ties are broken at random, in each file anew. The naive attacker draws
K rows at random for each record, so that two records share one with the probability 1 − C(N − K, K) / C(N, K).

The files are the modalities, those of several modalities as even as possible; the columns of a single table are split
at random. Distances are those of `attributes` if all modalities are tables and vectors, else those of the scaled rows
in which near copies are searched.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.metrics.privacy.attacks.attack import Outcome, Rate
from postprior.pipelines.metrics.privacy.attacks.attributes import Attributes, in_blocks, total_distances
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.metrics.statistics.neighbours import gaps

NEIGHBOURS = 5
Distances = Callable[[Tensor, Tensor], Tensor]
"""From people (n, F) and records (N, F) to distances (n, N)."""


def halves(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Split modalities of these sizes into two files: the largest first, each into the file with fewer columns.

    >>> halves([3, 9, 4, 1])
    ([1], [0, 2, 3])
    """
    files: tuple[list[int], list[int]] = ([], [])
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        min(files, key=lambda file: sum(sizes[m] for m in file)).append(place)
    return sorted(files[0]), sorted(files[1])


def split_attributes(attributes: Attributes, rng: np.random.Generator) -> tuple[Ints, Ints] | None:
    """Return the attributes of the two files; None if there are fewer than two. The label belongs to neither."""
    places, sizes = np.unique(attributes.places[attributes.places >= 0], return_counts=True)
    if len(places) > 1:
        first, second = (np.flatnonzero(np.isin(attributes.places, places[file])) for file in halves(sizes.tolist()))
        return first, second
    columns = rng.permutation(np.flatnonzero(attributes.places >= 0))
    half = len(columns) // 2
    return (np.sort(columns[:half]), np.sort(columns[half:])) if half else None


def table_files(attributes: Attributes, files: Sequence[Ints]) -> list[Distances]:
    """Return the distances of each file of attributes."""

    def of(file: Ints) -> Distances:
        return lambda people, records: total_distances(people[:, file], records[:, file], attributes.classes[file])

    return [of(file) for file in files]


def euclidean(people: Tensor, records: Tensor) -> Tensor:
    """Return squared distances (n, N), less a constant per person."""
    return gaps(people, records)


def linkability(
    sides: Sequence[Sequence[Tensor]],
    records: Sequence[Tensor],
    files: Sequence[Distances],
    rng: np.random.Generator,
    details: dict[str, object],
) -> Outcome:
    """Return the outcome of the attack on people with a record in both files.

    Shapes: `sides` training and held-out people, each with their records (n, F) in the two files; `records` the
    synthetic rows (N, F) in the two files.
    """
    count = len(records[0])
    orders = [torch.from_numpy(rng.permutation(count)) for _ in files]
    rates = []
    for side in sides:
        found = [
            order[_nearest(people, rows[order], distances)]
            for people, rows, distances, order in zip(side, records, files, orders, strict=True)
        ]
        linked = _linked(*(near.numpy() for near in found))
        rates.append(Rate.of(linked, np.ones(len(linked))))
    size = min(NEIGHBOURS, count)
    apart = np.prod((count - size - np.arange(size)).clip(0) / (count - np.arange(size)))
    return Outcome(rates[0], rates[1], 1 - float(apart), len(sides[0][0]), details)


def _nearest(people: Tensor, records: Tensor, distances: Distances) -> Tensor:
    """Return the places (n, K) of the records that are nearest to each person."""
    size = min(NEIGHBOURS, len(records))
    blocks = [distances(block, records) for _, block in in_blocks(people, len(records))]
    return torch.cat([block.topk(size, dim=1, largest=False, sorted=False).indices for block in blocks])


def _linked(first: Ints, second: Ints) -> Floats:
    """Return for each person whether two sets of records (n, K) share one, as 0 or 1."""
    return (first[:, :, None] == second[:, None, :]).any((1, 2)).astype(float)
