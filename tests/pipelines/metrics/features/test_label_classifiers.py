"""Label classifiers: what they learn, missing values, and reproducibility by seed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.labelled import MODALITIES, NAMES, data

from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.evaluator_outputs import accuracy
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.fitting import evaluator_scores
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import train_label_classifiers
from postprior.pipelines.stages.augment import augment
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.stages.utility import utility_of_real
from postprior.pipelines.storage import read_json, save_artefact
from postprior.stage1_vae.modalities import Modality


def trained_classifiers(dataset: Dataset, epochs: int = 3, seed: int = 0) -> LabelClassifiers:
    classifiers = LabelClassifiers(dataset.modalities, NAMES, 8, seed)
    for _ in train_label_classifiers(classifiers, dataset, epochs, 32, 1e-2, torch.Generator().manual_seed(seed)):
        pass
    return classifiers


def evaluators(classifiers: LabelClassifiers) -> Evaluators:
    return Evaluators("classifier", classifiers, classifiers)


@pytest.fixture(scope="module")
def classifiers() -> LabelClassifiers:
    return trained_classifiers(data())


def test_labels_of_unseen_data_are_predicted(classifiers: LabelClassifiers) -> None:
    test = data(seed=1)
    outputs = evaluators(classifiers).outputs(test)
    assert outputs.predictions is not None
    assert [features.shape for features in outputs.features] == [(600, 8), (600, 8)]
    assert (outputs.predictions == outputs.labels[:, None]).mean() > 0.95
    assert (evaluators(classifiers).label(test) == test.labels).mean() > 0.95
    first, second = (m.name for m in test.modalities)
    lacking = replace(test, data={first: test.data[first][::-1], second: test.data[second]})
    lacking = replace(lacking, mask=np.tile([False, True], (len(test), 1)))  # what is missing has no vote
    assert (evaluators(classifiers).label(lacking) == test.labels).mean() > 0.95


def test_a_seed_gives_the_same_bytes_and_no_global_generator_moves(classifiers: LabelClassifiers) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = trained_classifiers(data()).state()[0]
    assert torch.rand(1) == expected
    assert all(torch.equal(again[name], tensor) for name, tensor in classifiers.state()[0].items())
    other = LabelClassifiers(MODALITIES, NAMES, 8, seed=1).state()[0]
    assert not torch.equal(
        other["heads.table.weight"], LabelClassifiers(MODALITIES, NAMES, 8).state()[0]["heads.table.weight"]
    )


def test_outputs_of_a_row_do_not_depend_on_the_number_of_rows(classifiers: LabelClassifiers) -> None:
    long = evaluators(classifiers).outputs(data(seed=1))
    for rows in (BLOCK, 10):
        short = evaluators(classifiers).outputs(data(seed=1).select(np.arange(rows)))
        assert (long.joined[:rows] == short.joined).all()


def test_missing_values_are_neither_learned_from_nor_evaluated() -> None:
    states = [trained_classifiers(data(fill=fill), epochs=1).state()[0] for fill in (0.0, 1e3)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    outputs = evaluators(trained_classifiers(data(fill=0.0))).outputs(data(seed=1, fill=0.0))
    assert outputs.predictions is not None
    assert (outputs.predictions[0::3, 0] == -1).all()
    assert (outputs.features[0][0::3] == 0).all()
    scores = accuracy(outputs, ["picture", "table"], np.random.default_rng(0))
    assert scores["modalities"]["picture"]["accuracy"]["value"] > 0.9
    assert scores["accuracy"]["low"] <= scores["accuracy"]["value"] <= scores["accuracy"]["high"]


def test_a_modality_that_a_minibatch_lacks_is_skipped() -> None:
    rows = data(40)
    mask = np.ones((40, 2), bool)
    mask[1:, 1] = False
    sparse = Dataset(rows.modalities, rows.data, mask, labels=rows.labels, label_names=NAMES)
    assert all(bool(tensor.isfinite().all()) for tensor in trained_classifiers(sparse, epochs=1).state()[0].values())


def test_evaluators_are_rebuilt_from_their_artefact(classifiers: LabelClassifiers, tmp_path: Path) -> None:
    tensors, manifest = evaluators(classifiers).state()
    save_artefact(tmp_path / "judges", "judges", manifest, tensors)
    again = load_evaluators(tmp_path / "judges")
    assert again.label_names == NAMES
    assert again.classifiers is again.extractor
    assert (again.outputs(data(seed=1)).joined == evaluators(classifiers).outputs(data(seed=1)).joined).all()


@pytest.mark.parametrize("size", [(1, 1), (4, 7), (28, 28), (64, 48)])
def test_images_of_any_size_have_features(size: tuple[int, int]) -> None:
    body = LabelClassifiers((Modality("m", "image", (1, *size), "laplace"),), NAMES, 6)
    values = torch.zeros(2, 1, *size)
    assert body.features("m", values).shape == (2, 6)
    assert body.logits("m", values).shape == (2, 3)


def test_other_modalities_are_refused(classifiers: LabelClassifiers) -> None:
    table = Dataset(MODALITIES[1:], {"table": data().data["table"]})
    with pytest.raises(UserError, match="modalities"):
        evaluators(classifiers).outputs(table)


def test_the_stage_reports_accuracy_on_held_out_data(trained: tuple[Path, Any]) -> None:
    root, _ = trained
    scores = read_json(root / "results/metrics/evaluators.json")
    assert scores["samples"] == 120
    assert scores["extractor"] == "classifier"
    assert scores["features"] == dict.fromkeys(("m0", "m1", "m2", "m3", "m4"), 16)
    assert set(scores["modalities"]) == {f"m{index}" for index in range(5)}
    assert load_evaluators(root / "artefacts/evaluators").label_names == tuple("0123456789")


@pytest.mark.parametrize("stage", ["train-evaluators", "utility", "augment"])
def test_labels_of_other_names_are_refused(trained: tuple[Path, Any], tmp_path: Path, stage: str) -> None:
    _, params = trained
    rows = data(20)
    rows.save(tmp_path / "artefacts/data/train")
    names = rows.label_names or ()
    replace(rows, label_names=names[::-1]).save(tmp_path / "artefacts/data/test")
    run = {
        "train-evaluators": lambda: train_evaluators(params, tmp_path),
        "utility": lambda: utility_of_real(params, tmp_path),
        "augment": lambda: augment("10", params, tmp_path),
    }[stage]
    with pytest.raises(UserError, match=r"labels named c, b, a found, expected a, b, c as in .*train"):
        run()


def test_labels_of_one_split_alone_are_refused(trained: tuple[Path, Any], tmp_path: Path) -> None:
    _, params = trained
    rows = data(20)
    rows.save(tmp_path / "artefacts/data/train")
    Dataset(rows.modalities, rows.data).save(tmp_path / "artefacts/data/test")
    with pytest.raises(UserError, match=r"data/test: no labels found, but .*data/train has labels; add labels\.npy"):
        train_evaluators(params, tmp_path)
    assert not (tmp_path / "artefacts/evaluators").exists()


def test_label_classifiers_need_labels() -> None:
    rows = data(20)
    classifiers = LabelClassifiers(rows.modalities, NAMES, 8)
    with pytest.raises(ValueError, match="labels"):
        next(train_label_classifiers(classifiers, Dataset(rows.modalities, rows.data), 1, 8, 1e-3, torch.Generator()))


def test_of_many_test_rows_a_random_subset_is_used(
    classifiers: LabelClassifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postprior.pipelines.metrics.features.fitting.MOST", 300)
    found = evaluator_scores(evaluators(classifiers), data(seed=1), seed=0)
    assert found["samples"] == 300
    assert found["accuracy"]["value"] > 0.95


def test_the_accuracy_is_that_of_the_rows_with_a_label(classifiers: LabelClassifiers) -> None:
    test = data(60, seed=1)
    wrong = np.asarray(test.labels).copy()
    wrong[:20] = (wrong[:20] + 1) % 3
    known = np.arange(60) >= 10
    some = evaluators(classifiers).outputs(replace(test, labels=np.where(known, wrong, -1)))
    sets = some, some.select(np.flatnonzero(known))
    found, expected = (accuracy(each, ["picture", "table"], np.random.default_rng(0)) for each in sets)
    assert found["labelled"] == 50
    assert found["accuracy"]["value"] == expected["accuracy"]["value"] == pytest.approx(0.8, abs=0.03)


@pytest.mark.filterwarnings("error")
def test_a_modality_with_few_or_no_test_rows_is_missing_with_a_reason(classifiers: LabelClassifiers) -> None:
    test = data(20, seed=1)
    assert test.mask is not None
    test.mask[:, 0] = False
    test.mask[2:, 1] = False
    found = accuracy(evaluators(classifiers).outputs(test), ["picture", "table"], np.random.default_rng(0))
    missing = {"value": None, "why": "no test row with a label has picture"}
    assert found["modalities"]["picture"]["accuracy"] == missing
    table = found["modalities"]["table"]["accuracy"]
    assert table["value"] == 1  # of two rows, of which many half-samples keep none
    assert (table["low"], table["high"], table["why"]) == (None, None, "too few rows for an interval")
    assert found["accuracy"] == table  # the mean of what can be computed
