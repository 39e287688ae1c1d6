"""Agreement of the modalities of a tuple about its label, as judges read it, and what guards that number.

Independent modalities of C equal classes agree by chance: all M with probability C^-(M − 1), a pair with 1/C.
A sampler that repeats one tuple always agrees, so coherence is read beside the entropy of the labels (and
beside coverage, in `manifold`).
"""

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, weighted_mean


def joint_agreement(predictions: Ints) -> NDArray[np.bool_]:
    """Whether all modalities of a tuple carry one label (N,). Shapes: predictions (N, M), M ≥ 2.

    >>> joint_agreement(np.array([[7, 7], [7, 1]])).tolist()
    [True, False]
    """
    _check(predictions)
    return (predictions == predictions[:, :1]).all(1)


def pairwise_agreement(predictions: Ints) -> NDArray[np.float64]:
    """The share of a tuple's pairs of modalities that carry one label (N,). Shapes: predictions (N, M), M ≥ 2."""
    _check(predictions)
    left, right = np.triu_indices(predictions.shape[1], 1)
    return (predictions[:, left] == predictions[:, right]).mean(1)


def label_entropy(predictions: Ints, classes: int, weights: Floats) -> NDArray[np.float64]:
    """Entropy of the labels of each modality over log C: 1 for all classes alike, 0 for one only (B, M).

    Shapes: predictions (N, M) in 0 … C − 1, weights (B, N).
    """
    if classes < 2:
        raise ValueError(f"the entropy of labels needs at least two classes, found {classes}")
    one_hot = np.eye(classes)[predictions]  # (N, M, C)
    share = weighted_mean(one_hot, weights)
    logarithm = np.log(share, where=share > 0, out=np.zeros_like(share))
    return -(share * logarithm).sum(-1) / np.log(classes)


def _check(predictions: Ints) -> None:
    if predictions.shape[1] < 2:
        raise ValueError(f"coherence compares at least two modalities, found {predictions.shape[1]}")
    if (predictions < 0).any():
        raise ValueError("coherence compares complete tuples, found one with an unobserved modality")
