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
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, estimate, weighted_mean
from postprior.pipelines.metrics.statistics.missing import Written

BOUNDS = bounds_of("coherence")


def joint_agreement(predictions: Ints) -> NDArray[np.bool_]:
    """Return whether all modalities of a row have the same label (N,). Shapes: predictions (N, M), M ≥ 2.

    >>> joint_agreement(np.array([[7, 7], [7, 1]])).tolist()
    [True, False]
    """
    _check(predictions)
    return (predictions == predictions[:, :1]).all(1)


def pairwise_agreement(predictions: Ints) -> Floats:
    """Return the share (N,) of a row's pairs of modalities with the same label. Shapes: predictions (N, M), M ≥ 2."""
    _check(predictions)
    left, right = np.triu_indices(predictions.shape[1], 1)
    return (predictions[:, left] == predictions[:, right]).mean(1)


def label_entropy(predictions: Ints, classes: int, weights: Floats) -> Floats:
    """Return the entropy (B, M) of each modality's labels over log C: 1 for equally frequent classes, 0 for one class.

    Shapes: predictions (N, M) in 0 … C − 1, weights (B, N).
    """
    if classes < 2:
        raise ValueError(f"the entropy of labels needs at least two classes, found {classes}")
    share = weighted_mean(np.eye(classes)[predictions], weights)  # (B, M, C)
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


def nested_subsets(rows: int, modalities: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return nested subsets (N, M − 1, M): the first 1, 2, … M − 1 modalities in a random order, one order per row."""
    ranks = rng.random((rows, modalities)).argsort(1).argsort(1)
    return ranks[:, None] < np.arange(1, modalities)[:, None]


def share_right(predictions: Ints, labels: Ints, observed: NDArray[np.bool_]) -> Floats:
    """Return the share (N, S) of unobserved modalities whose predicted label is the row's label, per subset.

    Shapes: predictions (N, S, M) for rows completed from each of S subsets of observed modalities; labels (N,);
    observed (S, M), or (N, S, M) if subsets differ between rows.
    """
    correct = predictions == labels[:, None, None]
    return np.where(observed, 0, correct).sum(-1) / (~observed).sum(-1)


def by_size(key: str, means: Iterable[Floats]) -> dict[str, Written]:
    """Return estimates of a metric's means (1 + B,), keyed by the number 1, 2, … of observed modalities."""
    return {str(size): estimate(mean, BOUNDS[key]) for size, mean in enumerate(means, 1)}


def _check(predictions: Ints) -> None:
    if predictions.shape[1] < 2:
        raise ValueError(f"coherence compares at least two modalities, found {predictions.shape[1]}")
    if (predictions < 0).any():
        raise ValueError("coherence compares complete rows, found a row with an unobserved modality")
