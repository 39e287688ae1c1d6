"""Draws from random forests: the value of a random training row in the leaf of a random tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats


class Forest:
    """Trees of fitted ensembles; the squared error of one-hot classes is their Gini impurity, so they classify as well.

    Args:
        values: values (N, w) of the training rows, one column or one for each class.
        x: their predictors (N, P).
        ensembles: regressors of scikit-learn that consist of trees; they are fitted.
        targets: what they predict, (N, w) as well; the values if None.
    """

    def __init__(self, values: Floats, x: Floats, ensembles: Sequence[Any], targets: Floats | None = None) -> None:
        self.values, targets = values, values if targets is None else targets
        for each in ensembles:
            each.fit(x, targets if targets.shape[1] > 1 else targets[:, 0])
        self.ensembles = ensembles
        self.trees = [tree.tree_ for each in self.ensembles for tree in each.estimators_]
        leaves = np.concatenate([each.apply(x).T for each in self.ensembles])  # (trees, N)
        self.orders = leaves.argsort(1, kind="stable")
        self.leaves = np.take_along_axis(leaves, self.orders, 1)

    @property
    def left_out_error(self) -> float:
        """The mean squared error of training rows, predicted by the trees of an ensemble that did not learn from them.

        One of the ensembles has to compute these predictions (`oob_score`).
        """
        predicted = next(each.oob_prediction_ for each in self.ensembles if hasattr(each, "oob_prediction_"))
        return float(np.square(self.values - predicted.reshape(self.values.shape)).sum(1).mean())

    def draws(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Return for each row x (n, P) the value of a random training row in its leaf of a random tree, (n, w)."""
        x = x.astype(np.float32)
        trees, places = rng.integers(len(self.trees), size=len(x)), rng.random(len(x))
        donors = np.empty(len(x), int)
        for number in np.unique(trees):
            rows, leaves = np.flatnonzero(trees == number), self.leaves[number]
            leaf = self.trees[number].apply(x[rows])
            first, end = (np.searchsorted(leaves, leaf, side) for side in ("left", "right"))
            donors[rows] = self.orders[number][first + (places[rows] * (end - first)).astype(int)]
        return self.values[donors]

    def means(self, x: Floats) -> Floats:
        """Return the mean prediction of the ensembles, (n, w)."""
        mean: Floats = np.mean([each.predict(x) for each in self.ensembles], 0).reshape(len(x), -1)
        return mean
