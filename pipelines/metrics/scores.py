"""Rows of the leaderboard: one function scores any set of samples against the reference set."""

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
from postprior.pipelines.progress import substeps

WITH_ERROR = ("kernel_distance", "joint_kernel_distance")  # scores that are stored with their standard errors
LABELS_FROM_CLASSIFIERS = Missing("the label classifiers assigned the labels of these samples")
BOUNDS = bounds_of("coherence", "fidelity")
FIDELITY = of_family("fidelity")
JOINT = {key for key in FIDELITY if f"joint_{key}" in FIDELITY}
"""Scores whose value is the mean over modalities; "joint_<score>" is their value for all modalities together."""
FILES = {key: metric.file for key, metric in FIDELITY.items() if metric.about and not key.startswith("joint_")}
"""The module of each score that is computed in one feature space."""


@dataclass(frozen=True)
class ReferenceSet:
    """Evaluator outputs of the real rows that distances are measured to, with intermediate results."""

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
        """Build one space per modality and the joint space from outputs of N rows with weights (1 + B, N)."""
        spaces = tuple(Space(features, weights, neighbours) for features in outputs.features)
        return cls(spaces, Space(outputs.joined, weights, neighbours), modalities, classes)


def score(outputs: EvaluatorOutputs, weights: Floats, reference: ReferenceSet) -> Scores:
    """Compute every score of the outputs with weights (1 + B, N); a modality's scores are named "<score>/<modality>".

    Labels in the outputs are compared with the predicted labels; without predictions there are no scores of labels.
    Scores without a modality's name: distances in `JOINT` are means over modalities; all other fidelity scores are
    computed in the joint space, in which the features of all modalities are concatenated.
    """
    spaces, features = [*reference.spaces, reference.joint], [*outputs.features, outputs.joined]
    pairs = substeps(zip(spaces, features, strict=True), len(spaces))
    *separate, joint = [fidelity(space, Space(values, weights, space.neighbours)) for space, values in pairs]
    by_modality = {name: [scores[name] for scores in separate] for name in joint}
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
    """Return how often the predicted labels (N, M) of all modalities of a row agree."""
    agreements = {"joint_coherence": joint_agreement, "pairwise_coherence": pairwise_agreement}
    missing = too_few(predictions.shape[1], 2, "modalities") or unscored(len(predictions))
    return {name: missing or weighted_mean(agreement(predictions), weights) for name, agreement in agreements.items()}


def _labels(predictions: Ints, labels: Ints | None, classes: int, weights: Floats) -> dict[str, list[Score]]:
    """Return per modality the entropy of the predicted labels, and their agreement with the rows' labels if given."""
    missing = unscored(len(predictions))
    entropy = missing or too_few(classes, 2, "labels") or label_entropy(predictions, classes, weights)
    scores: Scores = {"label_entropy": entropy}
    if labels is not None:
        scores["label_agreement"] = missing or weighted_mean(predictions == labels[:, None], weights)
    modalities = predictions.shape[1]
    return {name: [x] * modalities if isinstance(x, Missing) else list(x.T) for name, x in scores.items()}


def row(scores: Scores, normal: Scores, reconstruction: Scores) -> dict[str, Any]:
    """Return the row as stored: values with intervals, also per modality, and comparisons with two baselines.

    `difference_to_normal` and `gap_closed` compare headline scores with the baselines `normal` and `reconstruction`.
    `gap_closed` is missing if the interval of the gap contains 0. `label_agreement` is missing for samples whose labels
    the label classifiers assigned.
    """
    written: dict[str, Any] = {"modalities": {}}
    if "joint_coherence" in scores:
        written["label_agreement"] = LABELS_FROM_CLASSIFIERS.written
    for name, values in scores.items():
        kind, _, modality = name.partition("/")
        place = written["modalities"].setdefault(modality, {}) if modality else written
        place[kind] = estimate(values, BOUNDS[kind])
        if kind in WITH_ERROR and not isinstance(values, Missing) and np.isfinite(values).all():
            place[kind]["standard_error"] = float(
                values[1:].std()
            )  # over half-samples; estimates that of the full sample
    headlines = [name for name in HEADLINES if name in scores]
    differences = {name: combined(np.subtract, scores[name], normal[name]) for name in headlines}
    gaps = {name: gap_closed(scores[name], normal[name], reconstruction[name]) for name in headlines}
    written["difference_to_normal"] = {name: estimate(values) for name, values in differences.items()}
    written["gap_closed"] = {name: gap.written if isinstance(gap, Missing) else gap for name, gap in gaps.items()}
    return written


def fidelity(real: Space, fake: Space) -> Scores:
    """Return all scores of fake rows against real rows in one space, by name."""
    if missing := unscored(min(len(real), len(fake))):
        return dict.fromkeys(FILES, missing)
    computed: Scores = {}
    files = dict.fromkeys(FILES.values())
    for file in substeps(files, len(files)):
        module = import_module(f"postprior.pipelines.metrics.fidelity.{file.removeprefix('fidelity/')}")
        computed |= module.scores(real, fake)
    return computed


def cautions(spaces: dict[str, int], rows: int) -> list[str]:
    """Return one sentence for each space with too many features for this number of rows.

    `spaces` maps names to numbers of features. If there are too few rows to score, there are no cautions.
    """
    sentences: list[str] = []
    if rows < FEWEST:
        return sentences
    for name, width in spaces.items():
        if rows <= 2 * width:
            singular = "the rows" if rows <= width else "the half-samples behind the intervals"
            sentences.append(
                f"{name}: there are {rows} rows and {width} features. Covariances of {singular} are singular, and "
                "Frechet distances are much larger than with more rows: compare them only at equal numbers of rows, or "
                "use kernel distances."
            )
    return sentences
