"""Properties that every registered score of samples has, whatever it measures; exceptions are named with their reason.

A metric that `scores.score` computes is covered by its entry in the registry. Any other needs a line in `ELSEWHERE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TypeVar

import numpy as np
import pytest

from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.registry import METRICS, Metric
from postprior.pipelines.metrics.scores import ReferenceSet, score
from postprior.pipelines.metrics.statistics.intervals import Floats, half_samples

T = TypeVar("T")
NAMES, CLASSES, WIDTH, ROWS, NEIGHBOURS = ("m0", "m1", "m2"), 4, 3, 80, 3
CENTRES = np.random.default_rng(7).normal(size=(CLASSES, WIDTH)) * 3

ELSEWHERE = {
    "coherence/alignment": "trains a classifier on pairings of modalities",
    "coherence/agreement:conditional_coherence": "is of modalities generated from the others of a real row",
    "coherence/agreement:conditional_gain": "is of modalities generated from the others of a real row",
    "coherence/agreement:private_gain": "is of modalities generated from the others of a real row",
    "fidelity/reconstruction": "compares each row with its own reconstruction",
    "tables": "compares cells of tables and vectors, not features",
    "utility": "trains classifiers on the samples",
    "imputation": "compares imputed values with the hidden ones",
    "privacy": "needs the training rows",
    "latent": "is of codes, not of samples",
}
"""Metrics that `scores.score` does not compute, by family, file, or file and key."""


def elsewhere(metric: Metric) -> str:
    """Why a metric is no score of samples; "" for one that is."""
    places = (metric.family, metric.file, f"{metric.file}:{metric.key}")
    return next((ELSEWHERE[place] for place in places if place in ELSEWHERE), "")


every_metric = pytest.mark.parametrize(
    "metric", [metric for metric in METRICS if not elsewhere(metric)], ids=lambda metric: metric.key
)

DUPLICATED = {
    "frechet_distance": ("the unbiased covariance of 2 N rows divides by 2 N − 1", lambda new, old: near(new, old)),
    "kernel_distance": ("two copies are a pair of different rows, and the most alike", lambda new, old: new > old),
    "mmd": ("two copies are a pair of different rows, and the most alike", lambda new, old: new > old),
    "recall": ("the k-th neighbour of a row is nearer if one neighbour is its copy", lambda new, old: new <= old),
}
"""Scores that change if all samples are there twice: why, and how."""

NOT_BEST = {
    "joint_coherence": "is not measured against the reference set",
    "pairwise_coherence": "is not measured against the reference set",
    "label_entropy": "is not measured against the reference set",
    "label_agreement": "is not measured against the reference set",
    "density": "samples that crowd where real rows are dense have more",
    "authenticity": "the rows of the reference set are copies of themselves, which is the worst",
}
"""Scores that are not best for samples that equal the reference set."""

SCALED = {"frechet_distance": ("is a squared distance of features", 4.0)}
"""Scores that change if all features are doubled: why, and by what factor."""

FIXED_KERNEL = "the polynomial kernel has an origin and a scale of its own"


def outputs(seed: int) -> EvaluatorOutputs:
    """Tuples that mostly show their label; features are multiples of 1/1024, which float32 adds and doubles exactly."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, ROWS)
    shown = np.where(rng.random((ROWS, 3)) < 0.7, labels[:, None], rng.integers(0, CLASSES, (ROWS, 3)))
    features = np.round(1024 * (CENTRES[shown] + rng.normal(size=(ROWS, 3, WIDTH)))) / 1024
    return EvaluatorOutputs(tuple(features.astype(np.float32).swapaxes(0, 1)), shown, labels)


def moved(rows: EvaluatorOutputs, scale: float = 1.0, shift: float = 0.0) -> EvaluatorOutputs:
    return replace(rows, features=tuple(np.float32(scale) * x + np.float32(shift) for x in rows.features))


@cache
def weights(seed: int) -> Floats:
    """The full sample, then 10 half-samples."""
    return half_samples(np.arange(ROWS), 10, np.random.default_rng(seed))


def scored(real: EvaluatorOutputs, fake: EvaluatorOutputs, of_real: Floats, of_fake: Floats) -> dict[str, Floats]:
    """Every score under all weights (1 + B,), by name; of the modalities too, as "<score>/<modality>"."""
    return score(fake, of_fake, ReferenceSet.fit(real, of_real, NEIGHBOURS, NAMES, CLASSES))


def plain(real: EvaluatorOutputs, fake: EvaluatorOutputs) -> dict[str, Floats]:
    return scored(real, fake, weights(0), weights(1))


@cache
def usual() -> dict[str, Floats]:
    return plain(outputs(0), outputs(1))


def of(metric: Metric, scores: dict[str, Floats]) -> Floats:
    """The values of a metric, and of its modalities where it has them: (1 or 1 + M, 1 + B)."""
    return np.stack([values for name, values in scores.items() if name.partition("/")[0] == metric.key])


def exception(metric: Metric, table: Mapping[str, T]) -> T | None:
    """What a table has for a metric, of the modalities or of whole tuples."""
    return table.get(metric.key.removeprefix("joint_") if metric.family == "fidelity" else metric.key)


def near(new: Floats, old: Floats) -> np.ndarray:
    """Whether values differ by the few per cent that one row more or less makes."""
    return np.isclose(new, old, rtol=0.1)


def better(metric: Metric, values: Floats) -> Floats:
    """Values of which higher ones are better."""
    return values if metric.better == "higher" else -values


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.family}-{metric.key}")
def test_a_metric_is_computed_from_samples_or_named_as_one_that_is_not(metric: Metric) -> None:
    computed = metric.family in ("coherence", "fidelity") and metric.key in usual()
    assert computed != bool(elsewhere(metric))


def test_exceptions_are_of_metrics() -> None:
    places = {place for metric in METRICS for place in (metric.family, metric.file, f"{metric.file}:{metric.key}")}
    assert set(ELSEWHERE) <= places
    assert {*DUPLICATED, *NOT_BEST, *SCALED} <= {metric.key for metric in METRICS if not elsewhere(metric)}


@every_metric
def test_the_order_of_rows_changes_nothing(metric: Metric) -> None:
    one, two = np.random.default_rng(2).permutation(ROWS), np.random.default_rng(3).permutation(ROWS)
    real, fake = outputs(0).select(one), outputs(1).select(two)
    found = of(metric, scored(real, fake, weights(0)[:, one], weights(1)[:, two]))
    np.testing.assert_allclose(found, of(metric, usual()), rtol=1e-6, atol=1e-9)


@every_metric
def test_samples_that_are_there_twice_count_as_once(metric: Metric) -> None:
    twice = np.repeat(np.arange(ROWS), 2)
    found = of(metric, scored(outputs(0), outputs(1).select(twice), weights(0), weights(1)[:, twice]))
    if change := exception(metric, DUPLICATED):
        reason, holds = change
        assert holds(found, of(metric, usual())).all(), reason
        assert not np.allclose(found, of(metric, usual()), rtol=1e-6, atol=1e-9), reason
    else:
        np.testing.assert_allclose(found, of(metric, usual()), rtol=1e-6, atol=1e-9)


@cache
def of_others() -> list[dict[str, Floats]]:
    """Scores of samples that are not the reference set; the last ones lie far from it."""
    one = outputs(1).select(np.zeros(ROWS, int))
    others = (
        outputs(1),
        one,
        moved(outputs(1), scale=2.0),
        moved(outputs(0), shift=1.0),
        moved(outputs(0), shift=16.0),
    )
    return [plain(outputs(0), fake) for fake in others]


@every_metric
def test_the_reference_set_itself_is_best(metric: Metric) -> None:
    if reason := exception(metric, NOT_BEST):
        pytest.skip(reason)
    step = 2 / ROWS  # shares of N rows rise in steps of 1/N
    same = better(metric, of(metric, scored(outputs(0), outputs(0), weights(0), weights(0)))[:, 0])
    others = [better(metric, of(metric, scores)[:, 0]) for scores in of_others()]
    assert (same >= np.max(others, axis=0) - step).all()
    assert (same > others[-1] + step).all()
    best = better(metric, np.array(metric.bounds)).max()
    assert not np.isfinite(best) or same == pytest.approx(best, abs=step)


@every_metric
def test_a_shift_of_all_features_changes_nothing(metric: Metric) -> None:
    found = of(metric, plain(moved(outputs(0), shift=8.0), moved(outputs(1), shift=8.0)))
    if metric.key in ("kernel_distance", "joint_kernel_distance"):
        assert not np.allclose(found, of(metric, usual())), FIXED_KERNEL
    else:
        np.testing.assert_allclose(found, of(metric, usual()), rtol=1e-6, atol=1e-9)


@every_metric
def test_a_scale_of_all_features_changes_nothing_but_distances(metric: Metric) -> None:
    found = of(metric, plain(moved(outputs(0), 2.0), moved(outputs(1), 2.0)))
    if metric.key in ("kernel_distance", "joint_kernel_distance"):
        assert not np.allclose(found, of(metric, usual())), FIXED_KERNEL
    else:
        _, factor = exception(metric, SCALED) or ("", 1.0)
        np.testing.assert_allclose(found, factor * of(metric, usual()), rtol=1e-6, atol=1e-9)
