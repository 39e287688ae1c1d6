"""Label scores of codes: brute force, scikit-learn on every half-sample, and chance level."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from postprior.pipelines.metrics.latent.representation import STARTS, Labelled, best_assignment, representation
from postprior.pipelines.metrics.statistics.intervals import SHARE, estimate, half_samples


def blobs(rows: int, seed: int, distance: float, labels: int = 4) -> Labelled:
    """Return codes with unit noise around the corners of a simplex with edges of length `distance`."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(labels, size=rows)
    return Labelled(distance / 2**0.5 * np.eye(labels, 6)[corner] + rng.normal(size=(rows, 6)), corner * 10 + 3)


def weights_of(labelled: Labelled, resamples: int = 20) -> NDArray[np.float64]:
    return half_samples(np.arange(len(labelled.labels)), resamples, np.random.default_rng(0), labelled.labels)


def test_the_best_of_all_assignments() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([2, 5, 7, 11], 60)
    clusters = np.where(rng.random(60) < 0.5, np.searchsorted([2, 5, 7, 11], labels)[::-1], rng.integers(4, size=60))
    best = max(np.mean(np.array(order)[clusters] == labels) for order in permutations([2, 5, 7, 11]))
    found = best_assignment(clusters, labels)
    assert sorted(found) == [2, 5, 7, 11]
    assert np.mean(found[clusters] == labels) == best


def test_agreement_of_clusters_and_labels_is_that_of_each_half_sample() -> None:
    train, test = blobs(300, 0, 4.0), blobs(200, 1, 4.0)
    weights = weights_of(test, 100)
    found = representation(train, test, weights, seed=0)
    clusters = KMeans(4, n_init=STARTS, random_state=0).fit(train.codes).predict(test.codes)
    for name, agreement in {"nmi": normalized_mutual_info_score, "ari": adjusted_rand_score}.items():
        halves = np.array([agreement(test.labels[kept], clusters[kept]) for kept in weights > 0])
        assert 0.1 < found[name]["value"] < 0.99
        assert found[name] == pytest.approx(estimate(halves, SHARE))


def test_codes_that_determine_the_labels() -> None:
    train, test = blobs(300, 0, 20.0), blobs(200, 1, 20.0)
    found = representation(train, test, weights_of(test), seed=0)
    assert set(found) == {"kmeans_accuracy", "nmi", "ari", "linear_probe", "knn"}
    for score in found.values():
        assert score == {"value": pytest.approx(1.0), "low": pytest.approx(1.0), "high": pytest.approx(1.0)}


def test_codes_independent_of_the_labels_score_at_chance_level() -> None:
    train, test = blobs(400, 0, 0.0), blobs(400, 1, 0.0)
    found = representation(train, test, weights_of(test, 100), seed=0)
    for name in ("kmeans_accuracy", "linear_probe", "knn"):
        assert abs(found[name]["value"] - 0.25) < 0.08  # 3.7 standard errors
        assert found[name]["high"] - found[name]["low"] == pytest.approx(4 * 0.0217, rel=0.4)
    assert found["ari"]["low"] < 0.01
    assert found["nmi"]["value"] < 0.05


def test_labels_are_learned_from_training_rows_only() -> None:
    """Test labels follow another rule, and scores apply the rule of the training labels to them."""
    train, test = blobs(300, 0, 20.0), blobs(200, 1, 20.0)
    swapped = Labelled(test.codes, np.select([test.labels == 3, test.labels == 13], [13, 3], test.labels))
    found = representation(train, swapped, weights_of(swapped), seed=0)
    kept = float(np.mean(test.labels > 13))
    for name in ("kmeans_accuracy", "linear_probe", "knn"):
        assert found[name]["value"] == pytest.approx(kept)
    assert found["ari"]["value"] == pytest.approx(1.0)  # invariant to the names of clusters


def test_the_same_seed_gives_the_same_numbers() -> None:
    train, test = blobs(300, 0, 2.0), blobs(200, 1, 2.0)
    one, other = (representation(train, test, weights_of(test), seed=3) for _ in range(2))
    assert one == other


def test_scores_are_missing_with_one_label() -> None:
    codes, one = blobs(60, 0, 3.0), blobs(40, 1, 3.0, labels=1)
    for train, test, side in ((one, codes, "training"), (codes, one, "test")):
        found = representation(train, test, weights_of(test), 0)
        why = f"at least 2 labels of {side} rows with complete codes are needed, found 1"
        assert set(found) == {"kmeans_accuracy", "linear_probe", "knn", "nmi", "ari"}
        assert all(score == {"value": None, "why": why} for score in found.values())
