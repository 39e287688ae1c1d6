"""The function that scores every row: real data, collapse, noise, and differences paired by half-sample."""

import json
from dataclasses import replace

import numpy as np
import pytest

from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.scores import LABELS_FROM_CLASSIFIERS, ReferenceSet, cautions, fidelity, row, score
from postprior.pipelines.metrics.statistics.intervals import half_samples, well_observed
from postprior.pipelines.metrics.statistics.missing import Missing

NAMES, CLASSES, WIDTH, ROWS = ("m0", "m1", "m2"), 4, 5, 120
SHARES = ("precision", "recall", "density", "coverage", "alpha_precision", "beta_recall", "authenticity")
CENTRES = np.random.default_rng(7).normal(size=(CLASSES, WIDTH)) * 3


def outputs(seed, coherent=1.0, labelled=True):
    """Return outputs whose modalities have the row's label with probability `coherent`, otherwise a random one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, ROWS)
    predictions = np.where(rng.random((ROWS, 3)) < coherent, labels[:, None], rng.integers(0, CLASSES, (ROWS, 3)))
    features = CENTRES[predictions] + rng.normal(size=(ROWS, 3, WIDTH))
    return EvaluatorOutputs(
        tuple(features.astype(np.float32).swapaxes(0, 1)), predictions, labels if labelled else None
    )


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    return [half_samples(np.arange(ROWS), 60, rng) for _ in range(2)]


@pytest.fixture(scope="module")
def reference(weights):
    return ReferenceSet.fit(outputs(0), weights[0], 3, NAMES, CLASSES)


@pytest.fixture(scope="module")
def scored(weights, reference):
    samples = {
        "normal": outputs(1, 0.0, False),
        "reconstruction": outputs(2, 0.9),
        "density": outputs(3, 0.7),
    }
    return {name: score(value, weights[1], reference) for name, value in samples.items()}


def test_a_row_holds_every_score_with_its_interval(scored):
    written = row(scored["density"], scored["normal"], scored["reconstruction"])
    own = {"label_entropy", "label_agreement", "frechet_distance", "kernel_distance", "mmd", *SHARES}
    names = own | {"joint_coherence", "pairwise_coherence", "joint_frechet_distance", "joint_kernel_distance"}
    assert names | {"modalities", "gap_closed", "difference_to_normal"} == set(written)
    for name in names:
        assert written[name]["low"] <= written[name]["value"] <= written[name]["high"]
    assert set(written["modalities"]) == set(NAMES)
    assert set(written["modalities"]["m0"]) == own
    for of in (
        written["kernel_distance"],
        written["joint_kernel_distance"],
        written["modalities"]["m0"]["kernel_distance"],
    ):
        assert 0 < of["standard_error"] < of["high"] - of["low"]
    json.dumps(written, allow_nan=False)


def test_the_gap_is_closed_in_part_and_the_difference_is_above_noise(scored):
    written = row(scored["density"], scored["normal"], scored["reconstruction"])
    assert 0 < written["gap_closed"]["joint_coherence"] < 1
    assert written["difference_to_normal"]["joint_coherence"]["low"] > 0
    floor = row(scored["normal"], scored["normal"], scored["reconstruction"])
    assert floor["gap_closed"]["joint_coherence"] == 0
    assert floor["difference_to_normal"]["joint_coherence"] == {"value": 0, "low": 0, "high": 0}
    assert floor["label_agreement"] == LABELS_FROM_CLASSIFIERS.written
    top = row(scored["reconstruction"], scored["normal"], scored["reconstruction"])
    assert top["gap_closed"]["joint_coherence"] == 1


def test_pairing_narrows_a_difference(scored, weights):
    """All rows share the half-samples of the reference set, whose noise cancels in differences."""
    distance = {name: values["frechet_distance"][1:] for name, values in scored.items()}
    paired = (distance["density"] - distance["reconstruction"]).std()
    rolled = (distance["density"] - np.roll(distance["reconstruction"], 1)).std()
    assert paired < rolled


def test_collapse_is_visible_despite_its_coherence(weights, reference):
    one = outputs(4).select(np.zeros(ROWS, int))
    scores = {name: values[0] for name, values in score(one, weights[1], reference).items()}
    assert scores["joint_coherence"] == 1
    assert scores["label_entropy"] == 0
    assert scores["coverage"] < 0.1
    assert scores["recall"] < 0.1


def test_label_agreement_is_that_of_the_rows_with_a_label(weights, reference):
    given = outputs(3, 0.7)
    known = np.arange(ROWS) % 4 > 0
    found = score(replace(given, labels=np.where(known, given.labels, -1)), weights[1], reference)
    expected = (given.predictions == given.labels[:, None])[known].mean()
    assert found["label_agreement"][0] == pytest.approx(expected)
    nothing = score(replace(given, labels=np.full(ROWS, -1)), weights[1], reference)
    assert nothing["label_agreement"].why == "there are no scored rows with m0 and a label"


def test_the_reference_against_itself_is_perfect(weights, reference):
    scores = score(outputs(0), weights[0], reference)
    assert scores["frechet_distance"] == pytest.approx(np.zeros(61), abs=1e-6)
    assert scores["joint_frechet_distance"] == pytest.approx(np.zeros(61), abs=1e-6)
    for name in ("precision", "recall", "coverage", "joint_coherence", "label_agreement"):
        assert scores[name] == pytest.approx(1), name
    assert scores["authenticity"] == pytest.approx(0)
    assert (scores["kernel_distance"] < 0).all()  # unbiased, of sets that share their rows


def test_distances_are_means_over_modalities_and_shares_are_joint(scored, reference, weights):
    scores = scored["density"]
    for name in ("frechet_distance", "kernel_distance"):
        assert scores[name] == pytest.approx(np.mean([scores[f"{name}/{m}"] for m in NAMES], axis=0))
    whole = fidelity(reference.joint, Space(outputs(3, 0.7).joined, weights[1], 3), "rows")
    for name in (*SHARES, "mmd"):
        assert (scores[name] == whole[name]).all()


def test_cautions_name_each_space_with_too_few_rows_for_its_features():
    def spaces(rows):
        return {"m0": (5, rows), "all modalities together": (15, rows)}

    assert cautions(spaces(31)) == []
    (half,) = cautions(spaces(30))
    assert half.startswith(
        "all modalities together: there are 30 rows and 15 features. Covariances of the half-samples"
    )
    first, second = cautions(spaces(5))
    assert first.startswith("m0: there are 5 rows and 5 features. Covariances of the rows are singular")
    assert second.startswith("all modalities together: there are 5 rows")


def test_votes_and_selection():
    predictions = np.array([[2, 2, 1], [-1, 3, -1]])
    few = EvaluatorOutputs((np.zeros((2, 1), np.float32),) * 3, predictions, groups=np.array([5, 5]))
    assert few.vote(4).tolist() == [2, 3]
    assert few.select(np.array([1])).groups.tolist() == [5]
    assert few.sources.tolist() == [5, 5]
    assert outputs(0).sources.tolist() == list(range(ROWS))


def few(rows):
    """Return the scores of this number of rows against equally many, with k = 3."""
    weights = half_samples(np.arange(rows), 10, np.random.default_rng(0))
    some = outputs(1).select(np.arange(rows))
    standard = ReferenceSet.fit(outputs(0).select(np.arange(rows)), weights, 3, NAMES, CLASSES)
    return score(some, weights, standard)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("rows", "reason"), [(0, "there are no"), (1, "at least 2 test rows")])
def test_one_row_has_no_score_but_a_reason(rows, reason):
    scores = few(rows)
    assert set(scores) == set(few(20))
    assert all(isinstance(values, Missing) and values.why.startswith(reason) for values in scores.values())
    written = row(scores, scores, scores)
    assert written["joint_coherence"]["value"] is None
    assert written["gap_closed"]["frechet_distance"] == written["joint_coherence"]
    json.dumps(written, allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_three_rows_have_distances_and_no_third_neighbour():
    scores = few(3)
    assert scores["precision"] == Missing("3 neighbours need more than 3 rows, found 3")
    assert scores["frechet_distance"][0] > 0
    assert not np.isfinite(scores["frechet_distance"]).all()  # half of three rows may be one
    json.dumps(row(scores, scores, scores), allow_nan=False)


def test_rows_whose_half_samples_have_no_third_neighbour_keep_the_value_of_all():
    scores = few(6)  # three in a half-sample
    assert np.isfinite(scores["precision"]).tolist() == [True] + 10 * [False]
    whole = ReferenceSet.fit(outputs(0).select(np.arange(6)), np.ones((1, 6)), 3, NAMES, CLASSES)
    alone = score(outputs(1).select(np.arange(6)), np.ones((1, 6)), whole)
    assert scores["coverage"][0] == alone["coverage"][0]
    assert np.isfinite(scores["joint_coherence"]).all()


@pytest.mark.filterwarnings("error")
def test_features_that_never_vary_have_finite_scores():
    same = EvaluatorOutputs(tuple(np.ones((20, WIDTH), np.float32) for _ in NAMES), np.zeros((20, 3), int))
    weights = half_samples(np.arange(20), 10, np.random.default_rng(0))
    scores = score(same, weights, ReferenceSet.fit(same, weights, 3, NAMES, CLASSES))
    assert all(np.isfinite(values).all() for values in scores.values())
    assert (scores["frechet_distance"] == 0).all()


def test_one_label_has_no_entropy_and_one_modality_no_coherence():
    weights = np.ones((1, 20))
    alone = EvaluatorOutputs(
        (np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32),), np.zeros((20, 1), int)
    )
    scores = score(alone, weights, ReferenceSet.fit(alone, weights, 3, ("m0",), 1))
    assert scores["label_entropy"] == Missing("at least 2 labels are needed, found 1")
    assert scores["joint_coherence"] == Missing("at least 2 modalities are needed, found 1")
    assert np.isfinite(scores["frechet_distance"]).all()


def test_scores_of_a_modality_are_those_of_the_rows_that_have_it(weights, reference):
    """Hidden features change only the joint space and the coherence, and the mean leaves out a modality of few rows."""
    mask = np.ones((ROWS, 3), bool)
    mask[5:, 2] = False

    def hidden(some):
        features = tuple(x * seen[:, None] for x, seen in zip(some.features, mask.T, strict=True))
        return replace(some, features=features, predictions=np.where(mask, some.predictions, -1), mask=mask)

    averaged = tuple(np.array(NAMES)[well_observed(mask.sum(0))])
    assert averaged == ("m0", "m1")
    few = ReferenceSet.fit(hidden(outputs(0)), weights[0], 3, NAMES, CLASSES, averaged)
    found, whole = score(hidden(outputs(1)), weights[1], few), score(outputs(1), weights[1], reference)
    rows = np.arange(5)
    alone = score(
        outputs(1).select(rows),
        weights[1][:1, :5],
        ReferenceSet.fit(outputs(0).select(rows), weights[0][:1, :5], 3, NAMES, CLASSES),
    )
    for name in ("frechet_distance", "kernel_distance", "coverage", "label_entropy", "label_agreement"):
        assert (found[f"{name}/m0"] == whole[f"{name}/m0"]).all()
        assert found[f"{name}/m2"][0] == pytest.approx(alone[f"{name}/m2"][0])
    mean = np.mean([found["frechet_distance/m0"], found["frechet_distance/m1"]], axis=0)
    assert (found["frechet_distance"] == mean).all()
    pairs = outputs(1).predictions
    agree = np.where(mask[:, 2], (pairs == pairs[:, :1]).all(1), pairs[:, 0] == pairs[:, 1])
    assert found["joint_coherence"][0] == pytest.approx(agree.mean())
