"""A row of the leaderboard: one function scores samples of any origin against the reference half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.coherence import joint_agreement, label_entropy, pairwise_agreement
from pipelines.metrics.frechet import Gaussians, frechet_distance
from pipelines.metrics.intervals import SHARE, Floats, estimate, gap_closed, weighted_mean
from pipelines.metrics.manifold import Balls, manifold
from pipelines.metrics.readings import Readings

Scores = dict[str, NDArray[np.float64]]  # name → (1 + B,): the full sample, then its half-samples
HEADLINES = ("joint_coherence", "frechet_distance")
BOUNDS = {  # every other score is a share
    "frechet_distance": (0.0, np.inf),
    "density": (0.0, np.inf),
    "incoherence": (-1.0, 1.0),
    "canonical_correlation": (-1.0, 1.0),
    "canonical_preservation": (-np.inf, np.inf),
}


@dataclass(frozen=True)
class Reference:
    """Real readings that distances are taken to, with what is computed of them once for all rows."""

    gaussians: tuple[Gaussians, ...]
    balls: Balls
    modalities: tuple[str, ...]
    classes: int | None

    @classmethod
    def fit(
        cls,
        readings: Readings,
        weights: Floats,
        neighbours: int,
        modalities: tuple[str, ...],
        classes: int | None,
    ) -> "Reference":
        """Gaussians a modality and balls of all, of readings of N rows under weights (1 + B, N)."""
        gaussians = tuple(Gaussians.fit(features, weights) for features in readings.features)
        return cls(gaussians, Balls.fit(readings.joined, weights, neighbours), modalities, classes)


def score(readings: Readings, weights: Floats, reference: Reference) -> Scores:
    """Every score of the readings under weights (1 + B, N), those of a modality as "<score>/<modality>".

    Labels that came with the readings are compared with what the judges read; without predictions there are no scores
    of labels. Precision, recall, density and coverage are those of whole tuples: the features of all modalities side
    by side.
    """
    by_modality: dict[str, Sequence[NDArray[np.float64]] | NDArray[np.float64]] = {
        "frechet_distance": [
            frechet_distance(gaussians, Gaussians.fit(features, weights))
            for gaussians, features in zip(reference.gaussians, readings.features, strict=True)
        ]
    }
    scores: Scores = {}
    if readings.predictions is not None and reference.classes is not None:
        scores["joint_coherence"] = weighted_mean(joint_agreement(readings.predictions), weights)
        scores["pairwise_coherence"] = weighted_mean(pairwise_agreement(readings.predictions), weights)
        by_modality["label_entropy"] = label_entropy(readings.predictions, reference.classes, weights).T
        if readings.labels is not None:
            right = readings.predictions == readings.labels[:, None]
            by_modality["label_agreement"] = weighted_mean(right, weights).T
    scores |= {name: np.mean(values, axis=0) for name, values in by_modality.items()}
    scores |= {
        f"{name}/{modality}": value
        for name, values in by_modality.items()
        for modality, value in zip(reference.modalities, values, strict=True)
    }
    balls = Balls.fit(readings.joined, weights, reference.balls.neighbours)
    return scores | vars(manifold(reference.balls, balls))


def row(scores: Scores, normal: Scores, reconstruction: Scores) -> dict[str, Any]:
    """The row as written: values with intervals, by modality too, and how they stand between floor and held-out codes.

    `label_agreement` is None for samples whose labels the judges gave, `gap_closed` where the gap is noise.
    """
    written: dict[str, Any] = {"modalities": {}}
    if "joint_coherence" in scores:
        written["label_agreement"] = None
    for name, values in scores.items():
        kind, _, modality = name.partition("/")
        place = written["modalities"].setdefault(modality, {}) if modality else written
        place[kind] = estimate(values, BOUNDS.get(kind, SHARE))
    compared = [name for name in HEADLINES if name in scores]
    written["difference_to_normal"] = {name: estimate(scores[name] - normal[name]) for name in compared}
    written["gap_closed"] = {
        name: gap_closed(scores[name], normal[name], reconstruction[name]) for name in compared
    }
    return written
