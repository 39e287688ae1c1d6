"""What the codes say of the labels, of which the autoencoder saw none: clusters, a linear probe, nearest neighbours.

Everything is learned from the codes and labels of training rows and scored on test rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from postprior.pipelines.metrics.statistics.intervals import (
    SHARE,
    Floats,
    Ints,
    estimate,
    too_few,
    weighted_mean,
)
from postprior.stage2_latent.codes import Codes

NEIGHBOURS = 10  # that vote
MOST = 20_000  # training rows that are learned from
STARTS = 10  # of k-means, of which the tightest clusters are taken
SCORES = ("kmeans_accuracy", "linear_probe", "knn", "nmi", "ari")
BOUNDS = {"ari": (-0.5, 1.0)}  # every other score is a share


@dataclass(frozen=True)
class Labelled:
    """Codes (N, D) and the label of each (N,)."""

    codes: Floats
    labels: Ints


def representation(train: Labelled, test: Labelled, weights: Floats, seed: int) -> dict[str, Any]:
    """`kmeans_accuracy`, `nmi`, `ari`, `linear_probe` and `knn`, each with its interval.

    Missing where the rows of either side have fewer than two labels.

    Args:
        train: rows to learn from.
        test: n rows to score.
        weights: (1 + B, n), half-samples of the test rows.
        seed: of k-means, and of the choice among more than `MOST` training rows.
    """
    some = np.random.default_rng(seed).permutation(len(train.codes))[:MOST]
    codes, labels = train.codes[some], train.labels[some]
    for side, shown in {"training": labels, "test": test.labels}.items():
        if few := too_few(len(np.unique(shown)), 2, f"labels of {side} rows with every block of codes"):
            return dict.fromkeys(SCORES, few.written)
    # sums over several threads end in an order of their own each time
    with threadpool_limits(limits=1):
        kmeans = KMeans(len(np.unique(labels)), n_init=STARTS, random_state=seed).fit(codes)
        clusters, test_clusters = kmeans.labels_, kmeans.predict(test.codes)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(codes, labels)
        voters = KNeighborsClassifier(min(NEIGHBOURS, len(codes))).fit(codes, labels)
        read = {
            "kmeans_accuracy": best_assignment(clusters, labels)[test_clusters],
            "linear_probe": probe.predict(test.codes),
            "knn": voters.predict(test.codes),
        }
    scores = {name: weighted_mean(found == test.labels, weights) for name, found in read.items()}
    tables = contingency(test_clusters, test.labels, weights)
    scores |= {"nmi": normalised_mutual_information(tables), "ari": adjusted_rand_index(tables)}
    return {name: estimate(values, BOUNDS.get(name, SHARE)) for name, values in scores.items()}


def by_part(train: Codes, test: Codes, weights: Floats, seed: int) -> dict[str, Any]:
    """The scores of whole codes; where some blocks are private to a modality, also `shared`, of the others alone."""

    def score(columns: Any) -> dict[str, Any]:
        learned, scored = (
            Labelled(codes.mean[:, columns].numpy(), np.asarray(codes.labels)) for codes in (train, test)
        )
        return representation(learned, scored, weights, seed)

    sizes = [block.size for block in test.layout]
    shared = np.repeat([block.owner is None for block in test.layout], sizes)
    scores = score(slice(None))
    return scores if shared.all() or not shared.any() else scores | {"shared": score(shared)}


def best_assignment(clusters: Ints, labels: Ints) -> Ints:
    """The label of each of K clusters (K,), one to one, under which most rows have their own (Kuhn 1955,
    https://doi.org/10.1002/nav.3800020109). Shapes: clusters (N,) in 0 … K − 1, labels (N,) of K kinds.
    """
    names, places = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (clusters, places), 1)
    answer: Ints = names[linear_sum_assignment(counts, maximize=True)[1]]
    return answer


def contingency(clusters: Ints, labels: Ints, weights: Floats) -> NDArray[np.float64]:
    """Numbers of rows (B, K, C) by cluster and label, among the rows that each line of weights (B, N) keeps."""
    sets = [np.unique(values, return_inverse=True) for values in (clusters, labels)]
    (K, C), (rows, columns) = (len(names) for names, _ in sets), (places for _, places in sets)
    cells = np.eye(K * C)[rows * C + columns]  # (N, K·C)
    return ((weights > 0) @ cells).reshape(-1, K, C)


def normalised_mutual_information(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """2 I(cluster; label) / (H(cluster) + H(label)) of tables (B, K, C): (B,)."""
    joint = tables / tables.sum((1, 2), keepdims=True)
    rows, columns, both = (
        -_plogp(p).sum(1) for p in (joint.sum(2), joint.sum(1), joint.reshape(len(joint), -1))
    )
    total = rows + columns
    return np.divide(2 * (total - both), total, out=np.ones(len(total)), where=total > 0)


def adjusted_rand_index(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of pairs of rows on which clusters and labels agree, 0 by chance and 1 at best (Hubert & Arabie 1985,
    https://doi.org/10.1007/BF01908075), of tables (B, K, C): (B,).
    """
    rows, columns, both = (
        _pairs(counts).sum(1) for counts in (tables.sum(2), tables.sum(1), tables.reshape(len(tables), -1))
    )
    chance = rows * columns / _pairs(tables.sum((1, 2)))
    most = (rows + columns) / 2
    return np.divide(both - chance, most - chance, out=np.ones(len(both)), where=most > chance)


def _pairs(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of pairs among so many rows."""
    return counts * (counts - 1) / 2


def _plogp(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return p * np.log(np.where(p > 0, p, 1.0))
