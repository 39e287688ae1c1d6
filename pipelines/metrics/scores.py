"""A row of the leaderboard: one function scores samples of any origin against the reference half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.coherence import joint_agreement, label_entropy, pairwise_agreement
from pipelines.metrics.fidelity import Scores, Space
from pipelines.metrics.intervals import SHARE, Floats, estimate, gap_closed, weighted_mean
from pipelines.metrics.readings import Readings

HEADLINES = ("joint_coherence", "frechet_distance")
DISTANCES = ("frechet_distance", "kernel_distance")  # of modalities; of tuples they are "joint_…"
WITH_ERROR = ("kernel_distance", "joint_kernel_distance")  # whose standard errors are written too
BOUNDS = {  # every other score is a share
    "frechet_distance": (0.0, np.inf),
    "joint_frechet_distance": (0.0, np.inf),
    "kernel_distance": (-np.inf, np.inf),
    "joint_kernel_distance": (-np.inf, np.inf),
    "mmd": (-np.inf, np.inf),
    "density": (0.0, np.inf),
    "incoherence": (-1.0, 1.0),
    "canonical_correlation": (-1.0, 1.0),
    "canonical_preservation": (-np.inf, np.inf),
}


@dataclass(frozen=True)
class Reference:
    """Real readings that distances are taken to, with what is computed of them once for all rows."""

    spaces: tuple[Space, ...]
    joint: Space
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
        """A space a modality and one of whole tuples, of readings of N rows under weights (1 + B, N)."""
        spaces = tuple(Space.fit(features, weights, neighbours) for features in readings.features)
        return cls(spaces, Space.fit(readings.joined, weights, neighbours), modalities, classes)


def score(readings: Readings, weights: Floats, reference: Reference) -> Scores:
    """Every score of the readings under weights (1 + B, N), those of a modality as "<score>/<modality>".

    Labels that came with the readings are compared with what the judges read; without predictions there are no scores
    of labels. Without a modality's name, distances of `DISTANCES` are means over modalities and all other fidelity is
    that of whole tuples, the features of all modalities side by side.
    """
    fidelity = [
        space.fidelity(features, weights)
        for space, features in zip(reference.spaces, readings.features, strict=True)
    ]
    joint = reference.joint.fidelity(readings.joined, weights)
    by_modality: dict[str, Sequence[NDArray[np.float64]] | NDArray[np.float64]] = {
        name: [scores[name] for scores in fidelity] for name in joint
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
    scores |= {f"joint_{name}" if name in DISTANCES else name: value for name, value in joint.items()}
    return scores | {
        f"{name}/{modality}": value
        for name, values in by_modality.items()
        for modality, value in zip(reference.modalities, values, strict=True)
    }


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
        if kind in WITH_ERROR:
            place[kind]["standard_error"] = float(values[1:].std())  # of half-samples: the full sample's
    compared = [name for name in HEADLINES if name in scores]
    written["difference_to_normal"] = {name: estimate(scores[name] - normal[name]) for name in compared}
    written["gap_closed"] = {
        name: gap_closed(scores[name], normal[name], reconstruction[name]) for name in compared
    }
    return written
