"""No score reads what rows store where a value is missing: other values there, real or synthetic, change nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.tables import COLUMNS
from support.tables import people as cells_of_people

from postprior.pipelines.artefacts.baselines import table_scores
from postprior.pipelines.data.conversion import ColumnConversion, TableConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import emptied, values_of
from postprior.pipelines.generation.samplers import SAMPLERS
from postprior.pipelines.metrics.features.evaluators import Evaluators, fit_extractor
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import train_label_classifiers
from postprior.pipelines.metrics.features.scale import Scale
from postprior.pipelines.metrics.fidelity.reconstruction import reconstruction_scores
from postprior.pipelines.metrics.tables.classifier_test import classifier_test
from postprior.pipelines.metrics.tables.column_tests import column_tests
from postprior.pipelines.metrics.utility.classifiers import Recipe, train_classifiers
from postprior.stage1_vae.modalities import Modality

MODALITIES = (
    Modality("t", "table", (5,), "columns", columns=COLUMNS),
    Modality("v", "vector", (2,), "normal"),
    Modality("scan", "image", (1, 8, 8), "laplace"),
)
WEIGHTS = np.ones((3, 60))


def people(seed: int, rows: int = 60) -> Dataset:
    """Rows with missing cells in a table, a vector and an image, and rows without the vector or the image."""
    rng = np.random.default_rng(seed)
    t, labels = cells_of_people(seed, rows), rng.integers(0, 2, rows)
    data = {"t": t, "v": rng.normal(size=(rows, 2)) + labels[:, None], "scan": rng.normal(size=(rows, 1, 8, 8))}
    cells = {name: rng.random(values.shape) < 0.7 for name, values in data.items()}
    mask = np.ones((rows, 3), bool)
    mask[: rows // 3, 1] = mask[-rows // 3 :, 2] = False
    values = {name: x.astype(np.float32) for name, x in data.items()}
    return Dataset(MODALITIES, values, mask, cells, labels=labels, label_names=("no", "yes"))


def scrambled(rows: Dataset, seed: int = 9) -> Dataset:
    """The same rows with other numbers where values are missing."""
    rng = np.random.default_rng(seed)
    data = {
        name: np.where(rows.missing(name), rng.normal(5, 9, x.shape), x).astype(np.float32)
        for name, x in rows.data.items()
    }
    assert all((data[name] != x).any() for name, x in rows.data.items())
    return replace(rows, data=data)


def evaluated(name: str, train: Dataset, test: Dataset) -> list[Any]:
    """Features, and predicted labels, of rows by an extractor that is fitted to others."""
    if name == "classifier":
        classifiers = LabelClassifiers(train.modalities, ("no", "yes"), 4)
        for _ in train_label_classifiers(classifiers, train, 2, 16, 1e-2, torch.Generator().manual_seed(0)):
            pass
        outputs = Evaluators(name, classifiers, classifiers).outputs(test)
        return [*outputs.features, outputs.predictions]
    return [*Evaluators(name, fit_extractor(name, train, 4, 0, None), None).outputs(test).features]


def reconstructed(train: Dataset, test: Dataset) -> Any:
    """Reconstruction errors of rows, with other rows as their reconstruction."""
    extractor = fit_extractor("pca", train, 4, 0, None)
    return reconstruction_scores(test, train, Evaluators("pca", extractor, None).outputs(train), WEIGHTS)


def predicted(train: Dataset, test: Dataset) -> Any:
    """Labels of rows by classifiers that learn from others."""
    return train_classifiers([train], Recipe(8, 16, 1e-2, 4), 0).predict(test)


def drawn(sampler: Callable[[Dataset, int, int], Dataset], train: Dataset) -> Any:
    """Rows of a baseline sampler; it has none for images."""
    table = replace(train, modalities=MODALITIES[:2], mask=train.observed[:, :2])
    return list(sampler(table, 60, 0).arrays.values())


SCORES: dict[str, Callable[[Dataset, Dataset], Any]] = {
    **{name: lambda *rows, name=name: evaluated(name, *rows) for name in ("pca", "random", "classifier")},
    **{name: lambda train, _, draw=draw: drawn(draw, train) for name, draw in SAMPLERS.items()},
    "utility": predicted,
    "reconstruction": reconstructed,
    "distances": lambda train, test: [Scale.fit(train, m)(test, np.arange(60)).numpy() for m in MODALITIES],
    "similarity": lambda train, test: table_scores(train, WEIGHTS, test, WEIGHTS),
    "column tests": column_tests,
    "c2st": lambda train, test: classifier_test(train, WEIGHTS, test, WEIGHTS),
}


@pytest.mark.parametrize("name", SCORES)
def test_what_is_stored_in_missing_cells_changes_no_score(name: str) -> None:
    train, test = people(0), people(1)
    score = SCORES[name]
    found = score(train, test)
    for real, synthetic in ((scrambled(train), test), (train, scrambled(test)), (scrambled(train), scrambled(test, 8))):
        np.testing.assert_equal(score(real, synthetic), found)


def test_missing_cells_hold_the_fill_value_of_the_import_and_observed_cells_their_own() -> None:
    columns = [
        ColumnConversion(c.name, "count", "double", fill=fill) for c, fill in zip(COLUMNS, range(5), strict=True)
    ]
    conversion = {"modalities": {"t": TableConversion("t", tuple(columns), {"file": "t.csv"}).describe()}}
    rows = scrambled(replace(people(0), conversion=conversion))
    for some in (slice(None), slice(7, 40), np.array([5, 3, 59])):
        for m, fill in zip(MODALITIES, (np.arange(5), 0, 0), strict=True):
            expected = np.where(rows.missing(m.name), fill, rows.data[m.name])[some]
            np.testing.assert_array_equal(values_of(rows, m, some), expected)
    np.testing.assert_equal(emptied(rows).data, {m.name: values_of(rows, m) for m in MODALITIES})
