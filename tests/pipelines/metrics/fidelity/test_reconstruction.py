"""Scores of reconstructions by the kind of each modality."""

import numpy as np
import pytest

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.fidelity.reconstruction import products, reconstruction_scores, row_errors
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.stage1_vae.modalities import Column, Modality


@pytest.mark.parametrize("labelled", [True, False])
def test_scores_depend_on_the_kind_of_modality(labelled: bool) -> None:
    modalities = (
        Modality("x", "vector", (2,), "normal"),
        Modality("y", "image", (1, 8, 8), "normal", (0, 1)),
        Modality("z", "image", (1, 8, 8), "normal"),
    )
    rng, labels = np.random.default_rng(0), np.arange(20) % 2
    values = {m.name: rng.random((20, *m.shape)).astype(np.float32) for m in modalities}
    real = Dataset(modalities, values, labels=labels if labelled else None)
    reconstruction = Dataset(modalities, {name: np.minimum(x, 0.5) for name, x in values.items()})
    predictions = np.stack([labels, 1 - labels, labels], 1) if labelled else None
    outputs = EvaluatorOutputs(tuple(np.zeros((20, 1), np.float32) for _ in modalities), predictions, real.labels)
    weights = half_samples(np.arange(20), 5, rng)
    found = reconstruction_scores(real, reconstruction, outputs, weights)
    likeness = {"ssim", "psnr", "l1"}
    kinds = {"reconstruction_error", "correlation"} | ({"accuracy"} if labelled else set())
    assert set(found) == kinds | likeness | {"modalities"}
    assert {name: set(scores) for name, scores in found["modalities"].items()} == {
        "x": kinds,
        "y": kinds | likeness,
        "z": kinds | likeness,
    }
    cut = values["y"] - np.minimum(values["y"], 0.5)
    assert found["modalities"]["y"]["l1"]["value"] == pytest.approx(cut.mean())
    pairs = 10 * np.log10(1 / (cut**2).mean((1, 2, 3)))
    assert found["modalities"]["y"]["psnr"]["value"] == pytest.approx(pairs.mean())
    both = [found["modalities"][name]["ssim"]["value"] for name in "yz"]
    assert found["ssim"]["value"] == pytest.approx(np.mean(both))
    if labelled:
        assert found["accuracy"]["value"] == pytest.approx(2 / 3)


def test_the_error_of_a_row_is_the_mean_over_its_observed_cells() -> None:
    vector = Modality("x", "vector", (4,), "normal")
    values, others = np.zeros((3, 4), np.float32), np.array([[1, 2, 9, 9], [3, 9, 9, 9], [9] * 4], np.float32)
    observed = np.array([[True, True, False, False], [True, False, False, False], [False] * 4])
    errors = row_errors(vector, values, others, observed)["reconstruction_error"]
    np.testing.assert_allclose(errors, [(1 + 4) / 2, 9, 0])
    np.testing.assert_allclose(row_errors(vector, values, others)["reconstruction_error"], (others**2).mean(1))


def test_the_mean_product_is_the_mean_correlation_of_the_columns_of_numbers() -> None:
    columns = (Column("a", "normal"), Column("b", "categorical", 3), Column("c", "negative_binomial"))
    columns += (Column("constant", "normal"),)
    table = Modality("t", "table", (4,), "columns", columns=columns)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 4)) * [1, 1, 1e5, 0]  # scales do not matter
    others = values * [2, 1, -1, 1] + rng.normal(size=(50, 4)) * [1, 1, 1e4, 1]
    seen = rng.random((50, 4)) < 0.8
    expected = [np.corrcoef(values[seen[:, j], j], others[seen[:, j], j])[0, 1] for j in (0, 2)]
    found = products(table, values, others, seen)
    assert found is not None
    assert found.mean() == pytest.approx(np.mean(expected))
    image = Modality("i", "image", (1, 5, 10), "normal")
    pixels, decoded = (
        array[:, :2].repeat(25, 1).reshape(50, 1, 5, 10) * rng.random(50).reshape(5, 10) for array in (values, others)
    )
    found = products(image, pixels, decoded)
    centred = [(array - array.mean(0)).ravel() for array in (pixels, decoded)]
    assert found is not None
    assert found.mean() == pytest.approx(np.corrcoef(*centred)[0, 1])
    assert products(Modality("w", "sequence", (4,), "categorical", classes=3), values, others) is None
    assert products(table, values * 0, others) is None  # nothing varies
