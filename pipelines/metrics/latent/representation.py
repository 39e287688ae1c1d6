"""What the codes say of the labels, of which the autoencoder saw none: clusters, a linear probe, nearest neighbours.

Everything is learned from the codes and labels of training rows and scored on test rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, estimate, too_few, weighted_mean
from postprior.stage2_latent.codes import Codes

NEIGHBOURS = 10  # that vote
MOST = 20_000  # training rows that are learned from
STARTS = 10  # of k-means, of which the tightest clusters are taken
SCORES = ("kmeans_accuracy", "linear_probe", "knn", "nmi", "ari")
BOUNDS = bounds_of("latent")


@dataclass(frozen=True)
class Labelled:
    """Codes (N, D) and the label of each (N,)."""

    codes: Floats
    labels: Ints


def representation(train: Labelled, test: Labelled, weights: Floats, seed: int) -> dict[str, Any]:
    """`kmeans_accuracy`, `nmi`, `ari`, `linear_probe` and `knn` of n test rows under weights (1 + B, n).

    Missing where the rows of either side have fewer than two labels. The seed is that of k-means, and of the choice
    among more than `MOST` training rows.
    """
    some = np.random.default_rng(seed).permutation(len(train.codes))[:MOST]
    codes, labels = train.codes[some], train.labels[some]
    for side, shown in {"training": labels, "test": test.labels}.items():
        if few := too_few(len(np.unique(shown)), 2, f"labels of {side} rows with every block of codes"):
            return dict.fromkeys(SCORES, few.written)
    with threadpool_limits(limits=1):  # sums over several threads end in an order of their own each time
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
    for name, agreement in {"nmi": normalized_mutual_info_score, "ari": adjusted_rand_score}.items():
        scores[name] = np.array([agreement(test.labels[kept], test_clusters[kept]) for kept in weights > 0])
    return {name: estimate(values, BOUNDS[name]) for name, values in scores.items()}


def whole_and_shared(train: Codes, test: Codes, weights: Floats, seed: int) -> dict[str, Any]:
    """The scores of whole codes; where some blocks are private to a modality, also `shared`, of the others alone."""

    def score(columns: Any) -> dict[str, Any]:
        learned, scored = (Labelled(of.mean[:, columns].numpy(), np.asarray(of.labels)) for of in (train, test))
        return representation(learned, scored, weights, seed)

    shared = np.repeat([block.owner is None for block in test.layout], [block.size for block in test.layout])
    scores = score(slice(None))
    return scores if shared.all() or not shared.any() else scores | {"shared": score(shared)}


def best_assignment(clusters: Ints, labels: Ints) -> Ints:
    """The label of each of K clusters (K,), one to one, under which most rows have their own (Kuhn 1955,
    https://doi.org/10.1002/nav.3800020109). Shapes: clusters (N,) in 0 … K − 1, labels (N,) of K kinds.
    """
    names, places = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (clusters, places), 1)
    return names[linear_sum_assignment(counts, maximize=True)[1]]
