"""Rows of the leaderboard: one function scores any set of samples against the reference set."""

from dataclasses import dataclass
from importlib import import_module
from itertools import compress
from typing import Any

import numpy as np

from postprior.pipelines.metrics.coherence.agreement import joint_agreement, label_entropy, pairwise_agreement
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.registry import TESTED, bounds_of, of_family
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    PAIRED,
    SCORED,
    Floats,
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
BOUNDS = bounds_of("coherence", "fidelity", "tables")
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
    averaged: tuple[str, ...]  # the modalities over which means are taken

    @classmethod
    def fit(
        cls,
        outputs: EvaluatorOutputs,
        weights: Floats,
        neighbours: int,
        modalities: tuple[str, ...],
        classes: int | None,
        averaged: tuple[str, ...] | None = None,
    ) -> "ReferenceSet":
        """Build one space per modality and the joint space from outputs of N rows with weights (1 + B, N).

        Means are taken over the modalities `averaged`; over all if None.
        """
        spaces = spaces_of(outputs, weights, neighbours)
        joint = Space(outputs.joined, weights, neighbours)
        return cls(spaces, joint, modalities, classes, modalities if averaged is None else averaged)


def spaces_of(outputs: EvaluatorOutputs, weights: Floats, neighbours: int) -> tuple[Space, ...]:
    """Return the space of each modality, with the rows in which it is observed; weights (1 + B, N)."""
    observed = zip(outputs.features, outputs.observed.T, strict=True)
    return tuple(Space(features[rows], weights[:, rows], neighbours) for features, rows in observed)


def score(outputs: EvaluatorOutputs, weights: Floats, reference: ReferenceSet) -> Scores:
    """Compute every score of the outputs with weights (1 + B, N); a modality's scores are named "<score>/<modality>".

    Labels in the outputs are compared with the predicted labels; without predictions there are no scores of labels.
    Scores without a modality's name: distances in `JOINT` are means over modalities; all other fidelity scores are
    computed in the joint space, in which the features of all modalities are concatenated. Features of an unobserved
    modality are 0 there: rows are compared like with like if they lack the same modalities as those of the reference
    set. Scores of a modality are those of the rows that have it.
    """
    neighbours = reference.joint.neighbours
    real = [*reference.spaces, reference.joint]
    fake = [*spaces_of(outputs, weights, neighbours), Space(outputs.joined, weights, neighbours)]
    nouns = [*(f"rows with {name}" for name in reference.modalities), "rows"]
    sides, few = substeps(zip(real, fake, nouns, strict=True), len(real)), too_few(len(outputs), FEWEST, SCORED)
    *separate, joint = [dict.fromkeys(FILES, few) if few else fidelity(*side) for side in sides]
    by_modality = {name: [scores[name] for scores in separate] for name in joint}
    scores: Scores = {}
    if outputs.predictions is not None and reference.classes is not None:
        scores |= _coherence(outputs, weights)
        by_modality |= _labels(outputs, reference, weights)
    averaged = [name in reference.averaged for name in reference.modalities]
    scores |= {name: mean_of([*compress(values, averaged)]) for name, values in by_modality.items()}
    scores |= {f"joint_{name}" if name in JOINT else name: value for name, value in joint.items()}
    return scores | {
        f"{name}/{modality}": value
        for name, values in by_modality.items()
        for modality, value in zip(reference.modalities, values, strict=True)
    }


def _coherence(outputs: EvaluatorOutputs, weights: Floats) -> Scores:
    """Return how often the predicted labels of all observed modalities agree, over rows with at least two of them."""
    assert outputs.predictions is not None
    agreements = {"joint_coherence": joint_agreement, "pairwise_coherence": pairwise_agreement}
    rows = outputs.paired
    if (
        missing := too_few(len(outputs.features), 2, "modalities")
        or unscored(len(outputs))
        or too_few(len(rows), FEWEST, PAIRED)
    ):
        return dict.fromkeys(agreements, missing)
    predictions = outputs.predictions[rows]
    return {name: weighted_mean(agreement(predictions), weights[:, rows]) for name, agreement in agreements.items()}


def _labels(outputs: EvaluatorOutputs, reference: ReferenceSet, weights: Floats) -> dict[str, list[Score]]:
    """Return per modality the entropy of the predicted labels, and their agreement with the labels that rows have."""
    assert outputs.predictions is not None
    assert reference.classes is not None
    scores: dict[str, list[Score]] = {"label_entropy": []}
    if outputs.labels is not None:
        scores["label_agreement"] = []
    for m, name in enumerate(reference.modalities):
        rows = outputs.having(m)
        predictions, seen = outputs.predictions[rows, m], weights[:, rows]
        noun = f"scored rows with {name}"
        missing = too_few(len(outputs), FEWEST, SCORED) or too_few(len(rows), FEWEST, noun)
        one_label = too_few(reference.classes, 2, "labels")
        scores["label_entropy"].append(missing or one_label or label_entropy(predictions, reference.classes, seen))
        if outputs.labels is not None:
            known = outputs.labels[rows] >= 0
            few = too_few(int(known.sum()), FEWEST, f"{noun} and a label")
            agreement = weighted_mean((predictions == outputs.labels[rows])[known], seen[:, known])
            scores["label_agreement"].append(missing or few or agreement)
    return scores


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
    tested = [name for name in TESTED if name in scores and name in normal]
    differences = {name: combined(np.subtract, scores[name], normal[name]) for name in tested}
    gaps = {name: gap_closed(scores[name], normal[name], reconstruction[name]) for name in tested}
    written["difference_to_normal"] = {name: estimate(values) for name, values in differences.items()}
    written["gap_closed"] = {name: gap.written if isinstance(gap, Missing) else gap for name, gap in gaps.items()}
    return written


def fidelity(real: Space, fake: Space, rows: str) -> Scores:
    """Return all scores of fake rows against real rows in one space, by name; `rows` describes them in messages."""
    if missing := too_few(len(real), FEWEST, f"test {rows}") or too_few(len(fake), FEWEST, f"scored {rows}"):
        return dict.fromkeys(FILES, missing)
    computed: Scores = {}
    files = dict.fromkeys(FILES.values())
    for file in substeps(files, len(files)):
        module = import_module(f"postprior.pipelines.metrics.fidelity.{file.removeprefix('fidelity/')}")
        computed |= module.scores(real, fake)
    return computed


def cautions(spaces: dict[str, tuple[int, int]]) -> list[str]:
    """Return one sentence for each space with too many features for its number of rows.

    `spaces` maps names to numbers of features and of rows. A space with too few rows to score has no caution.
    """
    sentences: list[str] = []
    for name, (width, rows) in spaces.items():
        if FEWEST <= rows <= 2 * width:
            singular = "the rows" if rows <= width else "the half-samples behind the intervals"
            sentences.append(
                f"{name}: there are {rows} rows and {width} features. Covariances of {singular} are singular, and "
                "Frechet distances are much larger than with more rows: compare them only at equal numbers of rows, or "
                "use kernel distances."
            )
    return sentences
