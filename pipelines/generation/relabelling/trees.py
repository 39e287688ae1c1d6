"""Boosted trees as plain arrays, which classify rows of tables: p(class | x) = softmax(s(x))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

RATE = 0.1  # of boosting
LEAVES, LEAF, SHARE = 8, 20, 0.5  # of a tree: its leaves, their rows, at least, and the share of features per split


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """s(x) = s₀ + Σ_t f_t(x), where each tree f_t adds to the score of one class (Friedman 2001).

    https://doi.org/10.1214/aos/1013203451. A node whose children are itself is a leaf.

    Attributes:
        start: s₀ (K,).
        classes: (T,), the class of each tree.
        features: (T, L), the feature that each node compares.
        thresholds: (T, L); rows with at most this value go to the first child.
        children: (2, T, L), nodes.
        values: (T, L), what a leaf adds.
    """

    start: Floats
    classes: Ints
    features: Ints
    thresholds: Floats
    children: Ints
    values: Floats

    def __post_init__(self) -> None:
        T, L = self.features.shape
        if self.thresholds.shape != (T, L) or self.values.shape != (T, L) or self.children.shape != (2, T, L):
            raise ValueError("trees: expected a feature, a threshold, a value and two children for each node")
        if self.classes.shape != (T,) or not 0 <= self.classes.min() <= self.classes.max() < len(self.start):
            raise ValueError("trees: expected a class for each")
        if not 0 <= self.children.min() <= self.children.max() < L or self.features.min() < 0:
            raise ValueError("trees: expected children among the nodes, and features")

    @classmethod
    def fit(cls, x: Floats, y: Ints, classes: int, steps: int, seed: int) -> Self:
        """Boost trees in some steps on rows x (N, F) of the classes y (N,), each of which occurs, by their log loss."""
        from sklearn.ensemble import GradientBoostingClassifier

        boosted = GradientBoostingClassifier(
            n_estimators=steps,
            learning_rate=RATE,
            max_depth=None,
            max_leaf_nodes=LEAVES,
            min_samples_leaf=LEAF,
            max_features=SHARE,
            random_state=seed,
        ).fit(x, y)
        trees = [each.tree_ for each in boosted.estimators_.ravel()]
        owners = np.arange(classes) if boosted.estimators_.shape[1] > 1 else np.array([1])  # of two classes, the second
        shape = len(trees), 2 * LEAVES - 1
        itself = np.broadcast_to(np.arange(shape[1]), shape)
        features, children = np.zeros(shape, np.int64), np.stack([itself, itself])
        thresholds, values = np.zeros(shape), np.zeros(shape)
        for t, tree in enumerate(trees):
            inner, nodes = tree.children_left >= 0, np.arange(tree.node_count)
            features[t, nodes], thresholds[t, nodes] = np.where(inner, tree.feature, 0), tree.threshold
            children[:, t, nodes] = np.where(inner, [tree.children_left, tree.children_right], nodes)
            values[t, nodes] = RATE * tree.value[:, 0, 0]
        shares = np.log(np.bincount(y, minlength=classes) / len(y))
        start = shares if len(owners) > 1 else shares - shares[0]
        return cls(start, np.tile(owners, steps), features, thresholds, children, values)

    def scores(self, x: Floats) -> Floats:
        """Return scores (n, K) of rows with the features x (n, F)."""
        x = x.astype(np.float32)  # as the trees were grown
        trees = np.arange(len(self.classes))
        node = np.zeros((len(x), len(trees)), np.int64)
        for _ in range(LEAVES - 1):  # the depth of a tree, at most
            value = np.take_along_axis(x, self.features[trees, node], 1)
            node = self.children[(value > self.thresholds[trees, node]).astype(int), trees, node]
        of_class = self.classes[:, None] == np.arange(len(self.start))
        scores: Floats = self.start + self.values[trees, node] @ of_class.astype(np.float64)
        return scores
