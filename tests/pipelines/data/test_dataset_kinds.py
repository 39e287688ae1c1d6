"""Datasets of classes, counts and tables: valid values, and the stages that read and write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.kinds import LABELS, MODALITIES, example

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.pictures import sheet_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.conditional_scores import decoded
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import train_label_classifiers
from postprior.stage1_vae.models import MODELS


def change(name: str, place: tuple[int, ...], value: float) -> Callable[[Dataset], None]:
    return lambda dataset: dataset.data[name].__setitem__(place, value)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64])
def test_datasets_of_every_kind_are_restored(tmp_path: Path, number: Any) -> None:
    made = example()
    made.data["codes"] = made.data["codes"].astype(number)
    made.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    assert loaded.modalities == MODALITIES
    batch = loaded.batch(slice(0, 3))
    assert all(batch.data[name].dtype == torch.float32 for name in made.data)
    assert batch.data["codes"].tolist() == made.data["codes"][:3].tolist()


SPOILED: dict[str, tuple[Callable[[Dataset], None], str]] = {
    "no class": (
        change("notes", (5, 2), 5),
        r"notes\.npy: value 5 in row 5 found, expected whole numbers from 0 to 4; ",
    ),
    "below zero": (
        change("codes", (3, 0), -1),
        r"codes\.npy: value -1 in row 3 found, expected whole numbers from 0 to 3",
    ),
    "half a class": (
        change("segments", (2, 0, 1, 1), 0.5),
        r"segments\.npy: value 0\.5 in row 2 found, expected whole",
    ),
    "half a count": (
        change("reads", (7, 1), 2.5),
        r"reads\.npy: value 2\.5 in row 7 found, .* numbers of at least 0",
    ),
    "a negative count": (change("reads", (0, 0), -3), r"reads\.npy: value -3 in row 0"),
    "no class of a column": (
        change("record", (4, 1), 3),
        r"record\.npy: value 3 of column city in row 4 found, expected whole numbers from 0 to 2",
    ),
    "half a count of a column": (change("record", (4, 2), 0.5), r"value 0\.5 of column visits in row 4"),
    "no bit": (
        change("record", (6, 3), 2),
        r"value 2 of column smoker in row 6 found, expected numbers from 0 to 1",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_impossible_values_are_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, sentence = SPOILED[case]
    dataset = example()
    spoil(dataset)
    with pytest.raises(UserError, match=sentence) as error:
        dataset.save(tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_missing_values_may_be_any_finite_number(tmp_path: Path) -> None:
    dataset = example()
    for name in ("notes", "reads", "record"):
        dataset.data[name][2] = -7.5
    mask = np.ones((8, len(MODALITIES)), bool)
    mask[2, [0, 2, 5]] = False
    replace(dataset, mask=mask).save(tmp_path / "rows")
    cells = {name: np.ones(dataset.data[name].shape, bool) for name in ("notes", "reads", "record")}
    for observed in cells.values():
        observed[2] = False
    replace(dataset, cells=cells).save(tmp_path / "cells")
    cells["record"][2, 3] = True
    with pytest.raises(UserError, match=r"value -7\.5 of column smoker in row 2"):
        replace(dataset, cells=cells).save(tmp_path / "cells")


def test_impossible_tables_are_refused_when_they_are_read(tmp_path: Path) -> None:
    example().save(tmp_path / "data")
    manifest = tmp_path / "data/manifest.json"
    text = manifest.read_text()
    for found, put, message in (
        (
            '"likelihood": "bernoulli"',
            '"likelihood": "cauchy"',
            "record: likelihood of column smoker: found 'cauchy'",
        ),
        ('"name": "city"', '"name": "age"', "record: columns of modality record: found 'age' twice"),
        ('"classes": 5', '"classes": 1', "notes: classes of modality notes: found 1, expected"),
    ):
        assert found in text
        manifest.write_text(text.replace(found, put))
        with pytest.raises(UserError, match=message):
            Dataset.load(tmp_path / "data")


@pytest.mark.parametrize("values", ["mean", "draws"])
def test_decoded_values_are_a_valid_dataset(tmp_path: Path, values: str) -> None:
    """Means of counts are rounded, so that a synthetic dataset is a valid input."""
    from postprior.pipelines.generation.generator import Generator

    model = MODELS["mvtcae"](MODALITIES, latent=3, width=2, seed=0)
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    pair = Generator(model, None, {})  # type: ignore[arg-type]
    with torch.no_grad():
        data = pair.decode(z, values, torch.Generator().manual_seed(1))
        scan = decoded(model, MODALITIES[2], z)
    made = Dataset(MODALITIES, data)
    made.save(tmp_path / "data")
    assert Dataset.load(tmp_path / "data").modalities == MODALITIES
    assert torch.equal(scan, scan.round())


def test_evaluators_accept_every_kind_of_modality() -> None:
    classifiers = LabelClassifiers(MODALITIES, LABELS, features=8)
    for _ in train_label_classifiers(classifiers, example(400), 6, 32, 1e-2, torch.Generator().manual_seed(0)):
        pass
    evaluators = Evaluators("classifier", classifiers, classifiers)
    outputs = evaluators.outputs(example(100, seed=1))
    assert outputs.labels is not None
    accuracy = (outputs.predictions == outputs.labels[:, None]).mean(0)
    assert (accuracy > 0.9).all(), accuracy
    again = Evaluators.from_state(*evaluators.state()).outputs(example(100, seed=1))
    np.testing.assert_array_equal(again.joined, outputs.joined)


def test_modalities_that_are_not_images_give_no_sheet() -> None:
    dataset = example()
    kept = tuple(m for m in MODALITIES if m.kind not in ("image", "volume"))
    assert sheet_of(replace(dataset, modalities=kept)) is None
    assert sheet_of(dataset) is not None
