"""A row of the leaderboard: one function scores samples of any origin against the reference half."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from postprior.pipelines.metrics.coherence.agreement import joint_agreement, label_entropy, pairwise_agreement
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.registry import HEADLINES, bounds_of, of_family
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    Floats,
    Ints,
    Score,
    Scores,
    combined,
    estimate,
    gap_closed,
    mean_of,
    too_few,
    unscored,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing

WITH_ERROR = ("kernel_distance", "joint_kernel_distance")  # whose standard errors are written too
LABELS_FROM_CLASSIFIERS = Missing("the judges gave these samples their labels")
BOUNDS = bounds_of("coherence", "fidelity")
KNOWN = of_family("fidelity")
JOINT = {key for key in KNOWN if f"joint_{key}" in KNOWN}
"""Scores whose value is the mean of the modalities; that of whole tuples is "joint_<score>"."""
FILES = {key: metric.file for key, metric in KNOWN.items() if metric.about and not key.startswith("joint_")}
"""The file of each score in one space."""


@dataclass(frozen=True)
class ReferenceSet:
    """Real outputs that distances are taken to, with what is computed of them once for all rows."""

    spaces: tuple[Space, ...]
    joint: Space
    modalities: tuple[str, ...]
    classes: int | None

    @classmethod
    def fit(
        cls,
        outputs: EvaluatorOutputs,
        weights: Floats,
        neighbours: int,
        modalities: tuple[str, ...],
        classes: int | None,
    ) -> "ReferenceSet":
        """A space a modality and one of whole tuples, of outputs of N rows under weights (1 + B, N)."""
        spaces = tuple(Space(features, weights, neighbours) for features in outputs.features)
        return cls(spaces, Space(outputs.joined, weights, neighbours), modalities, classes)


def score(outputs: EvaluatorOutputs, weights: Floats, reference: ReferenceSet) -> Scores:
    """Every score of the outputs under weights (1 + B, N), those of a modality as "<score>/<modality>".

    Labels that came with the outputs are compared with what the judges read; without predictions there are no scores
    of labels. Without a modality's name, distances of `JOINT` are means over modalities and all other fidelity is
    that of whole tuples, the features of all modalities side by side.
    """
    pairs = zip(reference.spaces, outputs.features, strict=True)
    own = [fidelity(space, Space(features, weights, space.neighbours)) for space, features in pairs]
    joint = fidelity(reference.joint, Space(outputs.joined, weights, reference.joint.neighbours))
    by_modality = {name: [scores[name] for scores in own] for name in joint}
    scores: Scores = {}
    if outputs.predictions is not None and reference.classes is not None:
        scores |= _coherence(outputs.predictions, weights)
        by_modality |= _labels(outputs.predictions, outputs.labels, reference.classes, weights)
    scores |= {name: mean_of(values) for name, values in by_modality.items()}
    scores |= {f"joint_{name}" if name in JOINT else name: value for name, value in joint.items()}
    return scores | {
        f"{name}/{modality}": value
        for name, values in by_modality.items()
        for modality, value in zip(reference.modalities, values, strict=True)
    }


def _coherence(predictions: Ints, weights: Floats) -> Scores:
    """How often the modalities (N, M) of whole tuples show one label."""
    agreements = {"joint_coherence": joint_agreement, "pairwise_coherence": pairwise_agreement}
    why = too_few(predictions.shape[1], 2, "modalities") or unscored(len(predictions))
    return {name: why or weighted_mean(of(predictions), weights) for name, of in agreements.items()}


def _labels(predictions: Ints, labels: Ints | None, classes: int, weights: Floats) -> dict[str, list[Score]]:
    """How even the labels are that each modality shows, and how often it is the label that a row came with."""
    few = unscored(len(predictions))
    entropy = few or too_few(classes, 2, "labels") or label_entropy(predictions, classes, weights)
    found: Scores = {"label_entropy": entropy}
    if labels is not None:
        found["label_agreement"] = few or weighted_mean(predictions == labels[:, None], weights)
    modalities = predictions.shape[1]
    return {name: [x] * modalities if isinstance(x, Missing) else list(x.T) for name, x in found.items()}


def row(scores: Scores, normal: Scores, reconstruction: Scores) -> dict[str, Any]:
    """The row as written: values with intervals, by modality too, and how they stand between floor and held-out codes.

    `label_agreement` is missing for samples whose labels the judges gave, `gap_closed` where the gap is noise.
    """
    written: dict[str, Any] = {"modalities": {}}
    if "joint_coherence" in scores:
        written["label_agreement"] = LABELS_FROM_CLASSIFIERS.written
    for name, values in scores.items():
        kind, _, modality = name.partition("/")
        place = written["modalities"].setdefault(modality, {}) if modality else written
        place[kind] = estimate(values, BOUNDS[kind])
        if kind in WITH_ERROR and not isinstance(values, Missing) and np.isfinite(values).all():
            place[kind]["standard_error"] = float(values[1:].std())  # of half-samples: the full sample's
    compared = [name for name in HEADLINES if name in scores]
    differences = {name: combined(np.subtract, scores[name], normal[name]) for name in compared}
    gaps = {name: gap_closed(scores[name], normal[name], reconstruction[name]) for name in compared}
    written["difference_to_normal"] = {name: estimate(values) for name, values in differences.items()}
    written["gap_closed"] = {name: gap.written if isinstance(gap, Missing) else gap for name, gap in gaps.items()}
    return written


def fidelity(real: Space, fake: Space) -> Scores:
    """Scores of fake rows against real ones in one space, by name."""
    if few := unscored(min(len(real), len(fake))):
        return dict.fromkeys(FILES, few)
    found: Scores = {}
    for file in dict.fromkeys(FILES.values()):
        module = import_module(f"postprior.pipelines.metrics.fidelity.{file.removeprefix('fidelity/')}")
        found |= module.scores(real, fake)
    return found


def cautions(spaces: dict[str, int], rows: int) -> list[str]:
    """What to know before reading the scores of so many rows, a sentence for each space that is too wide for them.

    `spaces` are numbers of features by name. Too few rows to score need no caution.
    """
    told: list[str] = []
    if rows < FEWEST:
        return told
    for name, width in spaces.items():
        if rows <= 2 * width:
            singular = "the rows" if rows <= width else "half of them, as behind the intervals,"
            told.append(
                f"{name}: {rows} rows against {width} features. Covariances of {singular} are singular and Frechet "
                "distances far above those of more rows: compare them at equal numbers of rows, or kernel distances."
            )
    return told
