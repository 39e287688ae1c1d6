"""What the judges read in a set of tuples: the one input of every score, and how rightly labels are read."""

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
    mean_of,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing

RESAMPLES = 200  # half-samples behind the accuracy of judges


@dataclass(frozen=True)
class EvaluatorOutputs:
    """Features and predicted labels of every modality, with the labels and sources that the rows came with."""

    features: tuple[NDArray[np.float32], ...]  # M times (N, F_m)
    predictions: NDArray[np.int64] | None = None  # (N, M), −1 of an unobserved modality; None where nobody knows labels
    labels: NDArray[np.int64] | None = None  # (N,), as given by the data or drawn by a density
    groups: NDArray[np.int64] | None = None  # (N,), the source of each row; None: each row its own

    def __len__(self) -> int:
        return len(self.features[0])

    @property
    def joined(self) -> NDArray[np.float32]:
        """Features of all modalities side by side (N, Σ F_m)."""
        return np.concatenate(self.features, axis=1)

    @property
    def sources(self) -> Ints:
        """The group of each row (N,), its own where it has none."""
        return np.arange(len(self)) if self.groups is None else self.groups

    def select(self, rows: Ints) -> "EvaluatorOutputs":
        """The outputs of some rows."""
        optional = {"predictions": self.predictions, "labels": self.labels, "groups": self.groups}
        chosen = {name: None if array is None else array[rows] for name, array in optional.items()}
        return replace(self, features=tuple(features[rows] for features in self.features), **chosen)

    def vote(self, classes: int) -> NDArray[np.int64]:
        """The label (N,) that most modalities show, the smaller one of a tie."""
        assert self.predictions is not None
        counts = (self.predictions[:, :, None] == np.arange(classes)).sum(1)
        return counts.argmax(1)


def accuracy(outputs: EvaluatorOutputs, modalities: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    """The share of labels read rightly, by modality over the rows that have it, and its mean; intervals by source."""
    assert outputs.labels is not None
    assert outputs.predictions is not None
    weights = half_samples(outputs.sources, RESAMPLES, rng, outputs.labels)
    observed, right = outputs.predictions >= 0, outputs.predictions == outputs.labels[:, None]
    shares: list[Score] = [
        weighted_mean(hits[seen], weights[:, seen]) if seen.any() else Missing(f"no test row has {name}")
        for name, hits, seen in zip(modalities, right.T, observed.T, strict=True)
    ]
    own = {name: {"accuracy": estimate(share, SHARE)} for name, share in zip(modalities, shares, strict=True)}
    return {"accuracy": estimate(mean_of(shares), SHARE), "modalities": own}
