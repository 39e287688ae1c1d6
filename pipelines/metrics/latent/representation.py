"""Label information in the codes of an autoencoder that never used labels: clusters, linear probe, nearest neighbours.

All models are fitted to codes and labels of training rows and scored on test rows.
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

from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, estimate, too_few, weighted_mean
from postprior.stage2_latent.codes import Codes

NEIGHBOURS = 10  # k of the nearest-neighbour classifier
MOST = 20_000  # maximum number of training rows
STARTS = 10  # random starts of k-means; the best one is used
SCORES = ("kmeans_accuracy", "linear_probe", "knn", "nmi", "ari")
BOUNDS = bounds_of("latent")


@dataclass(frozen=True)
class Labelled:
    """Codes (N, D) and their labels (N,)."""

    codes: Floats
    labels: Ints

    @classmethod
    def of(cls, codes: Codes, columns: Any) -> "Labelled":
        """Return these columns of the posterior means of the rows that have a label."""
        labels = np.asarray(codes.labels)
        return cls(codes.mean[:, columns].numpy()[labels >= 0], labels[labels >= 0])


def representation(train: Labelled, test: Labelled, weights: Floats, seed: int) -> dict[str, Any]:
    """Return `kmeans_accuracy`, `nmi`, `ari`, `linear_probe` and `knn` of n test rows with weights (1 + B, n).

    Scores are missing if the training or the test rows have fewer than two labels. The seed determines k-means, and the
    subset if there are more than `MOST` training rows.
    """
    subset = np.random.default_rng(seed).permutation(len(train.codes))[:MOST]
    codes, labels = train.codes[subset], train.labels[subset]
    for side, side_labels in {"training": labels, "test": test.labels}.items():
        if missing := too_few(len(np.unique(side_labels)), 2, f"labels of {side} rows with complete codes"):
            return dict.fromkeys(SCORES, missing.written)
    with threadpool_limits(limits=1):  # the order of sums over several threads would vary
        kmeans = KMeans(len(np.unique(labels)), n_init=STARTS, random_state=seed).fit(codes)
        clusters, test_clusters = kmeans.labels_, kmeans.predict(test.codes)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(codes, labels)
        voters = KNeighborsClassifier(min(NEIGHBOURS, len(codes))).fit(codes, labels)
        predictions = {
            "kmeans_accuracy": best_assignment(clusters, labels)[test_clusters],
            "linear_probe": probe.predict(test.codes),
            "knn": voters.predict(test.codes),
        }
    scores: dict[str, Floats] = {
        name: weighted_mean(labels == test.labels, weights) for name, labels in predictions.items()
    }
    joint = contingency(test_clusters, test.labels, weights > 0)
    scores |= {"nmi": normalised_mutual_information(joint), "ari": adjusted_rand_index(joint)}
    return {name: estimate(values, BOUNDS[name]) for name, values in scores.items()}


def whole_and_shared(train: Codes, test: Codes, weights: Floats, seed: int) -> dict[str, Any]:
    """Return the scores of whole codes and, if some blocks are private to a modality, `shared`: those without them.

    Rows without a label are not used. Shapes: weights (1 + B, n) of the n test rows.
    """
    weights = weights[:, np.asarray(test.labels) >= 0]

    def score(columns: Any) -> dict[str, Any]:
        return representation(Labelled.of(train, columns), Labelled.of(test, columns), weights, seed)

    shared = np.repeat([block.owner is None for block in test.layout], [block.size for block in test.layout])
    scores = score(slice(None))
    return scores if shared.all() or not shared.any() else scores | {"shared": score(shared)}


def contingency(clusters: Ints, labels: Ints, kept: NDArray[np.bool_]) -> Floats:
    """Return the number (B, K, L) of kept rows of each cluster and label; clusters and labels (n,), kept (B, n)."""
    cells = np.unique(clusters, return_inverse=True)[1][:, None] == np.arange(len(np.unique(clusters)))
    ones = labels[:, None] == np.unique(labels)
    return np.stack([(cells * line[:, None]).T @ ones.astype(np.float64) for line in kept])


def normalised_mutual_information(joint: Floats) -> Floats:
    """Return I(cluster; label) over the mean of both entropies (B,); 1 if both are constant. Counts (B, K, L)."""

    def entropy(counts: Floats) -> Floats:
        share = counts / counts.sum(1, keepdims=True)
        return -(share * np.log(share, where=share > 0, out=np.zeros_like(share))).sum(1)

    parts = entropy(joint.sum(2)) + entropy(joint.sum(1))
    information = parts - entropy(joint.reshape(len(joint), -1))
    return np.divide(information, parts / 2, where=parts > 0, out=np.ones_like(parts)).clip(0, 1)


def adjusted_rand_index(joint: Floats) -> Floats:
    """Return the share of pairs of rows on which clusters and labels agree, 0 at chance level and 1 at most: (B,).

    (Hubert & Arabie 1985, https://doi.org/10.1007/BF01908075.) Shapes: counts (B, K, L).
    """
    both, clusters, labels, pairs = (
        (counts * (counts - 1) / 2).reshape(len(joint), -1).sum(1)
        for counts in (joint, joint.sum(2), joint.sum(1), joint.sum((1, 2)))
    )
    expected, largest = clusters * labels / pairs.clip(1), (clusters + labels) / 2
    return np.divide(both - expected, largest - expected, where=largest > expected, out=np.ones_like(both))


def best_assignment(clusters: Ints, labels: Ints) -> Ints:
    """Return the label (K,) of each cluster in the one-to-one assignment with the highest accuracy (Kuhn 1955,
    https://doi.org/10.1002/nav.3800020109). Shapes: clusters (N,) in 0 … K − 1, labels (N,) with K distinct values.
    """
    names, places = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (clusters, places), 1)
    return names[linear_sum_assignment(counts, maximize=True)[1]]
