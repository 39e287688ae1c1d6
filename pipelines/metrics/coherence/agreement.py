"""Coherence with labels: agreement of the predicted labels of a row's modalities, and the entropy of these labels.

Independent modalities with C equally frequent classes agree by chance: all M with probability C^-(M − 1), a pair with
1/C. A sampler that always returns the same row always agrees, so read coherence together with the entropy of the labels
(and with coverage, in `manifold`).

Conditional coherence is the agreement of generated modalities with the row's label, given observed modalities. This
module does not depend on how the modalities are generated.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, Score, estimate, weighted_mean
from postprior.pipelines.metrics.statistics.missing import Written

BOUNDS = bounds_of("coherence")


def joint_agreement(predictions: Ints) -> NDArray[np.bool_]:
    """Return whether all observed modalities of a row have the same label (N,).

    Shapes: predictions (N, M), −1 if unobserved; every row has at least two observed modalities.

    >>> joint_agreement(np.array([[7, 7, -1], [7, 1, 7]])).tolist()
    [True, False]
    """
    _check(predictions)
    highest = predictions.max(1, keepdims=True)
    return ((predictions == highest) | (predictions < 0)).all(1)


def pairwise_agreement(predictions: Ints) -> Floats:
    """Return the share (N,) of a row's pairs of observed modalities with the same label. Shapes: predictions (N, M)."""
    _check(predictions)
    left, right = np.triu_indices(predictions.shape[1], 1)
    observed = (predictions[:, left] >= 0) & (predictions[:, right] >= 0)
    return ((predictions[:, left] == predictions[:, right]) & observed).sum(1) / observed.sum(1)


def label_entropy(predictions: Ints, classes: int, weights: Floats) -> Floats:
    """Return the entropy (B,) of labels over log C: 1 for equally frequent classes, 0 for one class.

    Shapes: predictions (N,) in 0 … C − 1, weights (B, N); NaN if no row has weight.
    """
    if classes < 2:
        raise ValueError(f"the entropy of labels needs at least two classes, found {classes}")
    share = weighted_mean(np.eye(classes)[predictions], weights)  # (B, C)
    logarithm = np.log(share, where=share > 0, out=np.zeros_like(share))
    return -(share * logarithm).sum(-1) / np.log(classes)


def subsets_by_size(modalities: int, limit: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return subsets (S, M) of 1 … M − 1 observed modalities, ordered by size.

    If there are more than `limit` subsets, about `limit` are drawn at random, equally many of every size if possible.

    >>> subsets_by_size(3, 60, np.random.default_rng(0)).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    by_size = [list(combinations(range(modalities), size)) for size in range(1, modalities)]
    if sum(map(len, by_size)) > limit:
        share = max(1, limit // len(by_size))
        chosen = [rng.choice(len(subsets), min(share, len(subsets)), replace=False) for subsets in by_size]
        by_size = [[subsets[i] for i in sorted(indices)] for subsets, indices in zip(by_size, chosen, strict=True)]
    members = [subset for subsets in by_size for subset in subsets]
    return np.array([[m in subset for m in range(modalities)] for subset in members])


def nested_subsets(observed: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return nested subsets (N, M − 1, M) of the observed modalities (N, M) of each row.

    They are the first 1, 2, … M − 1 observed modalities in a random order, one order per row; a row with fewer observed
    modalities repeats all of them.
    """
    ranks = (rng.random(observed.shape) + ~observed).argsort(1).argsort(1)
    return (ranks[:, None] < np.arange(1, observed.shape[1])[:, None]) & observed[:, None]


def share_right(predictions: Ints, labels: Ints, observed: NDArray[np.bool_]) -> Floats:
    """Return the share (N, S) of unobserved modalities whose predicted label is the row's label, per subset.

    Shapes: predictions (N, S, M) for rows completed from each of S subsets of observed modalities; labels (N,);
    observed (S, M), or (N, S, M) if subsets differ between rows.
    """
    correct = predictions == labels[:, None, None]
    return np.where(observed, 0, correct).sum(-1) / (~observed).sum(-1)


def by_size(key: str, means: Iterable[Score]) -> dict[str, Written]:
    """Return estimates of a metric's means, keyed by the number 1, 2, … of observed modalities."""
    return {str(size): estimate(mean, BOUNDS[key]) for size, mean in enumerate(means, 1)}


def _check(predictions: Ints) -> None:
    if predictions.shape[1] < 2:
        raise ValueError(f"coherence compares at least two modalities, found {predictions.shape[1]}")
    if ((predictions >= 0).sum(1) < 2).any():
        raise ValueError("coherence compares at least two modalities, found a row with fewer observed ones")
