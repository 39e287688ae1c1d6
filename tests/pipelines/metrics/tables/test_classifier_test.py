"""The classifier two-sample test: chance for one distribution, 1 for separable ones, holes, sources and sizes."""

import numpy as np
import pytest
from support.tables import people, table

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import estimate, half_samples
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.tables import classifier_test as test
from postprior.stage1_vae.modalities import Modality


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(test, "TREES", 30)


def auc(real: Dataset, fake: Dataset) -> float:
    ones = (np.ones((1, len(rows))) for rows in (real, fake))
    return float(test.classifier_test(real, next(ones), fake, next(ones))["c2st_auc"][0])


def test_rows_of_one_distribution_are_not_told_apart_and_lost_ties_are():
    real = table(people(0, 400))
    assert auc(real, table(people(1, 400))) == pytest.approx(0.5, abs=0.05)
    assert auc(real, table(people(0, 400, linked=False))) > 0.8  # every column is the same


def test_holes_are_values():
    values, holes = people(0, 300), np.random.default_rng(0).random((300, 5)) < 0.3
    real, holed = table(values), table(people(1, 300), cells={"t": ~holes})
    assert auc(real, holed) > 0.75
    lacking = table(people(2, 300), cells={"t": ~holes[::-1]})
    assert auc(holed, lacking) == pytest.approx(0.5, abs=0.06)


def test_vectors_are_read_and_other_modalities_are_not():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    vectors = [Dataset((Modality("v", "vector", (3,), "normal"),), {"v": rows}) for rows in (x[:100], x[100:] + 9)]
    assert auc(*vectors) == 1
    words = Dataset((Modality("w", "sequence", (4,), "categorical", classes=2),), {"w": np.zeros((9, 4), np.float32)})
    assert test.classifier_test(words, np.ones((1, 9)), words, np.ones((1, 9))) == {}


def test_copies_of_one_source_are_in_one_fold():
    """Ten copies of a row would be recognised by one another, with an AUC of 1, if folds cut through sources."""
    rows, groups = [np.repeat(people(seed, 60), 10, axis=0) for seed in (0, 1)], np.arange(600) // 10
    sets, rng = [table(x, groups=groups) for x in rows], np.random.default_rng(0)
    weights = [half_samples(dataset.sources, 60, rng) for dataset in sets]
    found = estimate(test.classifier_test(sets[0], weights[0], sets[1], weights[1])["c2st_auc"])
    assert 0.4 < found["low"] < found["value"] < found["high"] < 0.9
    assert auc(*(table(x) for x in rows)) == pytest.approx(1, abs=0.01)
    few = table(rows[0][:190], groups=groups[:190])
    missing = test.classifier_test(few, np.ones((1, 190)), few, np.ones((1, 190)))["c2st_auc"]
    assert isinstance(missing, Missing)
    assert "found 19" in missing.why


def test_many_rows_and_columns_are_bounded(monkeypatch):
    shapes = []
    monkeypatch.setattr(test, "auc", lambda sides, *_: shapes.extend(side.shape for side in sides) or np.ones(1))
    x = np.zeros((1500, 300), np.float32)
    wide = Dataset((Modality("v", "vector", (300,), "normal"),), {"v": x})
    assert auc(wide, wide) == 1
    assert shapes == [(test.ROWS, test.COLUMNS)] * 2
