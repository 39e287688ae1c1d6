"""Classifier two-sample test: how well a boosted classifier tells synthetic rows from real ones (C2ST).

Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545. Gradient-boosted trees read the cells of all tables and
vectors; a missing cell is a value of its own. Every row gets its score from a classifier that was trained on the other
folds. The AUC is 0.5 if nothing tells the rows apart, and 1 if everything does.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, Score, Scores, mean_of, too_few, weighted_auc
from postprior.pipelines.metrics.tables.columns import tables_of
from postprior.stage1_vae.modalities import Modality

FOLDS = 5
ROWS = 1000  # maximum number of rows of each set
COLUMNS = 100  # maximum number of columns
TREES, LEAVES = 100, 15  # of each classifier, and of each tree
CLASSES = 255  # maximum number of classes of a column that is not read as numbers
FEWEST = 4 * FOLDS  # rows of each set that the test needs


def classifier_test(real: Dataset, real_weights: Floats, fake: Dataset, fake_weights: Floats) -> Scores:
    """Return the AUC as "c2st_auc"; nothing without tables and vectors. Weights: (1 + B, N) and (1 + B, N′).

    Of more than `ROWS` rows or `COLUMNS` columns, so many are drawn at random, the same for every set of rows.
    """
    classes = classes_of(real.modalities)
    if not len(classes):
        return {}
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(classes))[:COLUMNS])
    sides, sources, weights = [], [], []
    for dataset, lines in ((real, real_weights), (fake, fake_weights)):
        rows = rng.permutation(len(dataset))[:ROWS]
        sides.append(cells_of(replace(dataset, source_values={}).select(rows))[:, chosen])
        sources.append(dataset.sources[rows])
        weights.append(lines[:, rows])
    return {"c2st_auc": auc(sides, classes[chosen], sources, weights, rng)}


def classes_of(modalities: Sequence[Modality]) -> NDArray[np.bool_]:
    """Return which columns of all tables and vectors, in the order of `cells_of`, are read as classes (C,)."""
    tables = [column.classes for modality in modalities for column in modality.columns]
    vectors = [m.classes for m in modalities if m.kind == "vector" for _ in range(m.shape[0])]
    return np.array([2 < (count or 0) <= CLASSES for count in tables + vectors], bool)


def cells_of(dataset: Dataset) -> Floats:
    """Return the cells (N, C) of all tables and vectors, NaN where missing."""
    values: list[Floats] = [np.empty((len(dataset), 0)), *(rows for _, rows in tables_of(dataset))]
    for modality in dataset.modalities:
        if modality.kind == "vector":
            values.append(np.where(dataset.missing(modality.name), np.nan, dataset.data[modality.name]))
    return np.concatenate(values, axis=1)


def auc(
    sides: list[Floats],
    classes: NDArray[np.bool_],
    sources: list[Ints],
    weights: list[Floats],
    rng: np.random.Generator,
) -> Score:
    """Return the mean AUC (1 + B,) over folds of sources, for real and synthetic cells (N, C) and (N′, C)."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # here, because few data have tables or vectors

    folds = [_folds(side, rng) for side in sources]
    distinct = min(len(np.unique(side)) for side in sources)
    if missing := too_few(distinct, FEWEST, "sources of rows in each half of the sources"):
        return missing
    x, real = np.concatenate(sides), np.repeat([True, False], [len(side) for side in sides])
    fold, found = np.concatenate(folds), []
    for held_out in range(FOLDS):
        seed = int(rng.integers(2**31))
        options = {"max_iter": TREES, "max_leaf_nodes": LEAVES, "early_stopping": False, "random_state": seed}
        model = HistGradientBoostingClassifier(**options, categorical_features=classes)
        model.fit(x[fold != held_out], real[fold != held_out])
        inside = [side == held_out for side in folds]
        scores = [model.predict_proba(side[kept])[:, 1] for side, kept in zip(sides, inside, strict=True)]
        found.append(weighted_auc(*scores, *(lines[:, kept] for lines, kept in zip(weights, inside, strict=True))))
    return mean_of(found)


def _folds(sources: Ints, rng: np.random.Generator) -> Ints:
    """Return the fold (N,) of every row; rows of one source are in the same fold."""
    names, codes = np.unique(sources, return_inverse=True)
    return np.asarray(rng.permutation(len(names)) % FOLDS)[codes]
