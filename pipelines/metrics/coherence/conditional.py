"""Conditional coherence: how often modalities that are generated from others carry the row's label.

Labels are those that judges read; how the modalities were generated is not known here.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import SHARE, Floats, Ints, Written, estimate

GAIN = (-1.0, 1.0)  # bounds of a difference of shares


def subsets_by_size(modalities: int, limit: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Subsets (S, M) of 1 … M − 1 observed modalities by size: all, or some `limit`, as many of every size.

    >>> subsets_by_size(3, 60, np.random.default_rng(0)).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    by_size = [list(combinations(range(modalities), size)) for size in range(1, modalities)]
    if sum(map(len, by_size)) > limit:
        share = max(1, limit // len(by_size))
        chosen = [rng.choice(len(some), min(share, len(some)), replace=False) for some in by_size]
        by_size = [
            [some[place] for place in sorted(places)] for some, places in zip(by_size, chosen, strict=True)
        ]
    members = [subset for subsets in by_size for subset in subsets]
    return np.array([[m in subset for m in range(modalities)] for subset in members])


def nested_parts(rows: int, modalities: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The first 1, 2, … M − 1 modalities in a random order of each row, (N, M − 1, M)."""
    places = rng.random((rows, modalities)).argsort(1).argsort(1)
    observed: NDArray[np.bool_] = places[:, None] < np.arange(1, modalities)[:, None]
    return observed


def share_right(predictions: Ints, labels: Ints, observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of the modalities that a part of a row lacks which carry the row's label: (N, S).

    Shapes: predictions (N, S, M) of what each part generates; labels (N,); observed (S, M), or (N, S, M) where parts
    differ by row.
    """
    right = predictions == labels[:, None, None]
    return np.where(observed, 0, right).sum(-1) / (~observed).sum(-1)


def by_size(means: Iterable[Floats], bounds: tuple[float, float] = SHARE) -> dict[str, Written]:
    """Estimates of means (1 + B,), by the number 1, 2, … of observed modalities that each is of."""
    return {str(size): estimate(mean, bounds) for size, mean in enumerate(means, 1)}
