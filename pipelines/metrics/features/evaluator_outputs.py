"""Evaluator outputs: features and predicted labels of a dataset, the input of every score; accuracy of the labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import (
    SHARE,
    Ints,
    Score,
    estimate,
    half_samples,
    mean_of_present,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing

RESAMPLES = 200  # half-samples for the intervals of accuracies


@dataclass(frozen=True)
class EvaluatorOutputs:
    """Features and predicted labels of every modality, with the given labels and sources of the rows."""

    features: tuple[NDArray[np.float32], ...]  # M times (N, F_m)
    predictions: NDArray[np.int64] | None = None  # (N, M), −1 if unobserved; None without label classifiers
    labels: NDArray[np.int64] | None = None  # (N,), given by the data or drawn by a density; −1: none
    groups: NDArray[np.int64] | None = None  # (N,), the source of each row; None: every row is its own source
    mask: NDArray[np.bool_] | None = None  # (N, M), the observed modalities; None: all are

    def __len__(self) -> int:
        return len(self.features[0])

    @property
    def joined(self) -> NDArray[np.float32]:
        """Concatenated features of all modalities (N, Σ F_m)."""
        return np.concatenate(self.features, axis=1)

    @property
    def sources(self) -> Ints:
        """The source of each row (N,)."""
        return np.arange(len(self)) if self.groups is None else self.groups

    @property
    def observed(self) -> NDArray[np.bool_]:
        """The observed modalities of each row (N, M)."""
        return np.ones((len(self), len(self.features)), bool) if self.mask is None else self.mask

    def having(self, *modalities: int) -> Ints:
        """Return the rows in which all these modalities are observed."""
        return np.flatnonzero(self.observed[:, modalities].all(1))

    @property
    def paired(self) -> Ints:
        """The rows with at least two observed modalities, which can be coherent."""
        return np.flatnonzero(self.observed.sum(1) >= 2)

    def select(self, rows: Ints) -> "EvaluatorOutputs":
        """Return the outputs of these rows."""
        names = ("predictions", "labels", "groups", "mask")
        optional = {name: getattr(self, name) for name in names}
        chosen = {name: None if array is None else array[rows] for name, array in optional.items()}
        return replace(self, features=tuple(features[rows] for features in self.features), **chosen)

    def vote(self, classes: int) -> NDArray[np.int64]:
        """Return the label (N,) predicted for most modalities; the smaller label in a tie."""
        assert self.predictions is not None
        counts = (self.predictions[:, :, None] == np.arange(classes)).sum(1)
        return counts.argmax(1)


def accuracy(outputs: EvaluatorOutputs, modalities: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    """Return the accuracy of predicted labels per modality, over labelled rows in which it is observed, and their mean.

    The mean leaves out modalities that no such row has. Half-samples for the intervals draw sources.
    """
    assert outputs.labels is not None
    assert outputs.predictions is not None
    weights = half_samples(outputs.sources, RESAMPLES, rng, outputs.labels)
    labels = outputs.labels[:, None]
    observed, correct = (outputs.predictions >= 0) & (labels >= 0), outputs.predictions == labels
    shares: list[Score] = [
        weighted_mean(hits[rows], weights[:, rows]) if rows.any() else Missing(f"no test row with a label has {name}")
        for name, hits, rows in zip(modalities, correct.T, observed.T, strict=True)
    ]
    by_modality = {name: {"accuracy": estimate(share, SHARE)} for name, share in zip(modalities, shares, strict=True)}
    labelled = int((outputs.labels >= 0).sum())
    number = {"labelled": labelled} if labelled < len(outputs) else {}
    return {"accuracy": estimate(mean_of_present(shares), SHARE), **number, "modalities": by_modality}
