"""Classifier two-sample test: how well a boosted classifier tells synthetic rows from real ones (C2ST).

Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545. Gradient-boosted trees read the cells of all tables and
vectors; a missing cell is a value of its own. Every row gets its score from a classifier that was trained on the other
folds. The AUC is 0.5 if nothing tells the rows apart, and 1 if everything does.
"""

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, Score, Scores, mean_of, too_few, weighted_auc
from postprior.pipelines.metrics.tables.columns import tables_of

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
    columns, classes = cells_of(real)
    if not len(classes):
        return {}
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(classes))[:COLUMNS])
    sides, sources, weights = [], [], []
    for values, dataset, lines in ((columns, real, real_weights), (cells_of(fake)[0], fake, fake_weights)):
        rows = rng.permutation(len(values))[:ROWS]
        sides.append(values[rows][:, chosen])
        sources.append(dataset.sources[rows])
        weights.append(lines[:, rows])
    return {"c2st_auc": auc(sides, classes[chosen], sources, weights, rng)}


def cells_of(dataset: Dataset) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the cells (N, C) of all tables and vectors, NaN where missing, and which columns are classes (C,)."""
    values: list[Floats] = [np.empty((len(dataset), 0))]
    classes: list[bool] = []
    for table, rows in tables_of(dataset):
        values.append(rows)
        classes += [2 < (column.classes or 0) <= CLASSES for column in table.columns]
    for modality in dataset.modalities:
        if modality.kind == "vector":
            values.append(np.where(dataset.missing(modality.name), np.nan, dataset.data[modality.name]))
            classes += [2 < (modality.classes or 0) <= CLASSES] * modality.shape[0]
    return np.concatenate(values, axis=1), np.array(classes, bool)


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
