"""The stage `augment`: everything is trained on the selected rows only."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprior.pipelines.artefacts.augmentation import load_arm_hits
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.augmentation import ARMS, epochs_of, stratified, stratified_subsample
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.augment import augment
from postprior.pipelines.storage import load_artefact, read_json

Project = tuple[Path, Params]
FOLDER, FILE = "artefacts/augmentation/40", "results/augmentation/40.json"


def splits_of(root: Path) -> dict[str, Dataset]:
    return {split: Dataset.load(root / "artefacts/data" / split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def augmented(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with data only, and the augmentation of 40 rows with two seeds."""
    root = tmp_path_factory.mktemp("augmented")
    shutil.copytree(trained[0] / "artefacts/data", root / "artefacts/data")
    params = with_settings(trained[1], seeds=(0, 1))
    augment("40", params, root)
    return root, params


def with_settings(params: Params, **changes: Any) -> Params:
    return params.model_copy(update={"augment": params.augment.model_copy(update=changes)})


def test_every_arm_is_tested_on_every_test_row(augmented: Project) -> None:
    root, params = augmented
    written = read_json(root / FILE)
    assert {key: written[key] for key in ("rows", "seeds", "model", "density")} == {
        "rows": 40,
        "seeds": [0, 1],
        "model": params.augment.model,
        "density": "kde",
    }
    assert set(written["accuracy"]) == set(ARMS)
    hits = load_artefact(root / FOLDER, "augmentation").arrays["hits"]
    assert hits.shape == (2, len(ARMS), 6, 120)
    assert hits.dtype == bool
    found = written["accuracy"]["synthetic_5x"]
    assert found["joint"] == pytest.approx(hits[:, 3, 0].mean())
    assert found["modalities"]["m4"] == pytest.approx(hits[:, 3, 5].mean())
    assert found["mean"] == pytest.approx(hits[:, 3, 1:].mean())


def test_predictions_are_read_with_the_sources_of_their_test_rows(augmented: Project) -> None:
    found = load_arm_hits(augmented[0] / FOLDER)
    assert found is not None
    assert (found.rows, list(found.seeds), list(found.arms)) == (40, [0, 1], list(ARMS))
    assert (found.sources == splits_of(augmented[0])["test"].groups).all()


def test_other_rows_and_other_stages_have_no_effect(augmented: Project, tmp_path: Path) -> None:
    """Results are the same if other rows are noise, and without validation split, evaluators or autoencoder."""
    root, params = augmented
    splits = splits_of(root)
    train = splits["train"]
    others = np.setdiff1d(np.arange(len(train)), stratified(train.labels, 40, np.random.default_rng(0)))
    assert len(others) == 260
    rng = np.random.default_rng(1)
    data = {name: np.array(values) for name, values in train.data.items()}
    for values in data.values():
        values[others] = rng.random((260, *values.shape[1:]))
    replace(train, data=data, folder=None).save(tmp_path / "artefacts/data/train")
    shutil.copytree(root / "artefacts/data/test", tmp_path / "artefacts/data/test")
    augment("40", with_settings(params, seeds=(0,)), tmp_path)
    folders = [place / "artefacts/augmentation/40" for place in (root, tmp_path)]
    answers = [load_artefact(folder, "augmentation").arrays["hits"] for folder in folders]
    assert (answers[0][:1] == answers[1]).all()


def test_a_density_without_labels_is_labelled_by_these_rows(augmented: Project, tmp_path: Path) -> None:
    """There are no evaluators, which more rows could have trained."""
    shutil.copytree(augmented[0] / "artefacts/data", tmp_path / "artefacts/data")
    augment("40", with_settings(augmented[1], density="gaussian", seeds=(0,)), tmp_path)
    accuracy = read_json(tmp_path / FILE)["accuracy"]
    real = load_artefact(augmented[0] / FOLDER, "augmentation").arrays["hits"][0, 0, 0].mean()
    assert accuracy["real"]["joint"] == pytest.approx(real)
    assert set(accuracy) == set(ARMS)


def test_rows_are_chosen_by_label_and_seed(augmented: Project) -> None:
    train = splits_of(augmented[0])["train"]
    shares = np.bincount(train.labels) / len(train)
    first, again, other = (stratified_subsample(train, "100", seed) for seed in (0, 0, 1))
    assert len(first) == 100
    assert np.abs(np.bincount(first.labels) - 100 * shares).max() < 1
    assert (first.ids == again.ids).all()
    assert (first.ids != other.ids).any()
    assert stratified_subsample(train, "all", 3) is train
    assert len(stratified_subsample(replace(train, labels=None), "7", 0)) == 7


@pytest.mark.parametrize("size", ["0", "301", "-3", "many"])
def test_a_size_that_cannot_be_taken_is_refused(size: str, augmented: Project) -> None:
    with pytest.raises(UserError, match=f"size: found {size}, expected all or a whole number from 1 to 300"):
        augment(size, augmented[1], augmented[0])


@pytest.mark.parametrize("rows", [10, 64, 100, 5000])
def test_steps_are_about_the_same_for_any_number_of_rows(rows: int) -> None:
    steps = epochs_of(800, rows, 64) * -(-rows // 64)
    assert steps == pytest.approx(800, rel=0.05)


def test_without_labels_there_is_nothing_to_learn(augmented: Project, tmp_path: Path) -> None:
    for split, rows in splits_of(augmented[0]).items():
        replace(rows, labels=None, label_names=None).save(tmp_path / "artefacts/data" / split)
    augment("40", augmented[1], tmp_path)
    assert "accuracy" not in read_json(tmp_path / FILE)
    assert load_arm_hits(tmp_path / FOLDER) is None
