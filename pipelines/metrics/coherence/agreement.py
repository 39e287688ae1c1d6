"""Agreement of the modalities of a tuple about its label, as judges read it, and what guards that number.

Independent modalities of C equal classes agree by chance: all M with probability C^-(M − 1), a pair with 1/C.
A sampler that repeats one tuple always agrees, so coherence is read beside the entropy of the labels (and
beside coverage, in `manifold`).

Conditional coherence is the agreement of modalities that are generated from others with the row's label. How they were
generated is not known here.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, estimate, weighted_mean
from postprior.pipelines.metrics.statistics.missing import Written

BOUNDS = bounds_of("coherence")


def joint_agreement(predictions: Ints) -> NDArray[np.bool_]:
    """Whether all modalities of a tuple carry one label (N,). Shapes: predictions (N, M), M ≥ 2.

    >>> joint_agreement(np.array([[7, 7], [7, 1]])).tolist()
    [True, False]
    """
    _check(predictions)
    return (predictions == predictions[:, :1]).all(1)


def pairwise_agreement(predictions: Ints) -> Floats:
    """The share of a tuple's pairs of modalities that carry one label (N,). Shapes: predictions (N, M), M ≥ 2."""
    _check(predictions)
    left, right = np.triu_indices(predictions.shape[1], 1)
    return (predictions[:, left] == predictions[:, right]).mean(1)


def label_entropy(predictions: Ints, classes: int, weights: Floats) -> Floats:
    """Entropy of the labels of each modality over log C: 1 for all classes alike, 0 for one only (B, M).

    Shapes: predictions (N, M) in 0 … C − 1, weights (B, N).
    """
    if classes < 2:
        raise ValueError(f"the entropy of labels needs at least two classes, found {classes}")
    share = weighted_mean(np.eye(classes)[predictions], weights)  # (B, M, C)
    logarithm = np.log(share, where=share > 0, out=np.zeros_like(share))
    return -(share * logarithm).sum(-1) / np.log(classes)


def subsets_by_size(modalities: int, limit: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Subsets (S, M) of 1 … M − 1 observed modalities by size: all, or some `limit`, as many of every size.

    >>> subsets_by_size(3, 60, np.random.default_rng(0)).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    by_size = [list(combinations(range(modalities), size)) for size in range(1, modalities)]
    if sum(map(len, by_size)) > limit:
        share = max(1, limit // len(by_size))
        chosen = [rng.choice(len(some), min(share, len(some)), replace=False) for some in by_size]
        by_size = [[some[place] for place in sorted(places)] for some, places in zip(by_size, chosen, strict=True)]
    members = [subset for subsets in by_size for subset in subsets]
    return np.array([[m in subset for m in range(modalities)] for subset in members])


def nested_subsets(rows: int, modalities: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The first 1, 2, … M − 1 modalities in a random order of each row, (N, M − 1, M)."""
    places = rng.random((rows, modalities)).argsort(1).argsort(1)
    return places[:, None] < np.arange(1, modalities)[:, None]


def share_right(predictions: Ints, labels: Ints, observed: NDArray[np.bool_]) -> Floats:
    """The share of the modalities that a part of a row lacks which carry the row's label: (N, S).

    Shapes: predictions (N, S, M) of what each part generates; labels (N,); observed (S, M), or (N, S, M) where parts
    differ by row.
    """
    right = predictions == labels[:, None, None]
    return np.where(observed, 0, right).sum(-1) / (~observed).sum(-1)


def by_size(key: str, means: Iterable[Floats]) -> dict[str, Written]:
    """Estimates of a metric's means (1 + B,), by the number 1, 2, … of observed modalities that each is of."""
    return {str(size): estimate(mean, BOUNDS[key]) for size, mean in enumerate(means, 1)}


def _check(predictions: Ints) -> None:
    if predictions.shape[1] < 2:
        raise ValueError(f"coherence compares at least two modalities, found {predictions.shape[1]}")
    if (predictions < 0).any():
        raise ValueError("coherence compares complete tuples, found one with an unobserved modality")
