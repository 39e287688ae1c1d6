"""How well judges read the labels of held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from postprior.pipelines.metrics.features.readings import Readings
from postprior.pipelines.metrics.statistics.intervals import (
    SHARE,
    Missing,
    Score,
    estimate,
    half_samples,
    mean_of,
    weighted_mean,
)

RESAMPLES = 200


def accuracy(readings: Readings, modalities: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    """The share of labels read rightly, by modality over the rows that have it, and its mean; intervals by source."""
    assert readings.labels is not None
    assert readings.predictions is not None
    weights = half_samples(readings.sources, RESAMPLES, rng, readings.labels)
    observed, right = readings.predictions >= 0, readings.predictions == readings.labels[:, None]
    shares: list[Score] = [
        weighted_mean(hits[seen], weights[:, seen]) if seen.any() else Missing(f"no test row has {name}")
        for name, hits, seen in zip(modalities, right.T, observed.T, strict=True)
    ]
    return {
        "accuracy": estimate(mean_of(shares), SHARE),
        "modalities": {
            name: {"accuracy": estimate(share, SHARE)} for name, share in zip(modalities, shares, strict=True)
        },
    }
