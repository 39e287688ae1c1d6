"""The stage `augment`: everything is trained on the selected rows only."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprior.pipelines.artefacts.cells import load_cells
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.augmentation import ARMS, epochs_of, stratified, stratified_subsample
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.augment import augment
from postprior.pipelines.storage import file_hash, load_artefact, read_json

Project = tuple[Path, Params]
FILES = ("artefacts/augmentation/40-0/manifest.json", "results/augmentation/40-0.json")


def splits_of(root: Path) -> dict[str, Dataset]:
    return {split: Dataset.load(root / "artefacts/data" / split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def cell(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with data only, and one cell of the augmentation curve."""
    root = tmp_path_factory.mktemp("augmented")
    shutil.copytree(trained[0] / "artefacts/data", root / "artefacts/data")
    augment("40", trained[1], root, 0)
    return root, trained[1]


def with_settings(params: Params, **changes: Any) -> Params:
    return params.model_copy(update={"augment": params.augment.model_copy(update=changes)})


def test_every_arm_is_tested_on_every_test_row(cell: Project) -> None:
    root, params = cell
    written = read_json(root / FILES[1])
    assert {key: written[key] for key in ("size", "seed", "model", "density")} == {
        "size": 40,
        "seed": 0,
        "model": params.augment.model,
        "density": "kde",
    }
    assert set(written["accuracy"]) == set(ARMS)
    hits = load_artefact(root / "artefacts/augmentation/40-0", "augmentation").arrays["hits"]
    assert hits.shape == (len(ARMS), 6, 120)
    assert hits.dtype == bool
    found = written["accuracy"]["synthetic_5x"]
    assert found["joint"] == pytest.approx(hits[3, 0].mean())
    assert found["modalities"]["m4"] == pytest.approx(hits[3, 5].mean())
    assert found["mean"] == pytest.approx(hits[3, 1:].mean())


def test_cells_are_read_with_the_sources_of_their_test_rows(cell: Project) -> None:
    root, _ = cell
    (found,) = load_cells(root / "artefacts/augmentation")
    assert (found.size, found.seed, list(found.arms)) == (40, 0, list(ARMS))
    assert (found.sources == splits_of(root)["test"].groups).all()
    assert load_cells(root / "nowhere") == []


def test_other_rows_and_other_stages_have_no_effect(cell: Project, tmp_path: Path) -> None:
    """Results are the same if other rows are noise, and without validation split, evaluators or autoencoder."""
    root, params = cell
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
    augment("40", params, tmp_path, 0)
    folders = [place / "artefacts/augmentation/40-0" for place in (root, tmp_path)]
    answers = [load_artefact(folder, "augmentation").arrays["hits"] for folder in folders]
    assert (answers[0] == answers[1]).all()
    assert file_hash(tmp_path / FILES[1]) == file_hash(root / FILES[1])


def test_a_density_without_labels_is_labelled_by_these_rows(cell: Project, tmp_path: Path) -> None:
    """There are no evaluators, which more rows could have trained."""
    shutil.copytree(cell[0] / "artefacts/data", tmp_path / "artefacts/data")
    augment("40", with_settings(cell[1], density="gaussian"), tmp_path, 0)
    accuracy = read_json(tmp_path / FILES[1])["accuracy"]
    assert accuracy["real"] == read_json(cell[0] / FILES[1])["accuracy"]["real"]
    assert set(accuracy) == set(ARMS)


def test_rows_are_chosen_by_label_and_seed(cell: Project) -> None:
    train = splits_of(cell[0])["train"]
    shares = np.bincount(train.labels) / len(train)
    first, again, other = (stratified_subsample(train, "100", seed) for seed in (0, 0, 1))
    assert len(first) == 100
    assert np.abs(np.bincount(first.labels) - 100 * shares).max() < 1
    assert (first.ids == again.ids).all()
    assert (first.ids != other.ids).any()
    assert stratified_subsample(train, "all", 3) is train
    assert len(stratified_subsample(replace(train, labels=None), "7", 0)) == 7


@pytest.mark.parametrize("size", ["0", "301", "-3", "many"])
def test_a_size_that_cannot_be_taken_is_refused(size: str, cell: Project) -> None:
    with pytest.raises(UserError, match=f"size: found {size}, expected all or a whole number from 1 to 300"):
        augment(size, cell[1], cell[0], 0)


@pytest.mark.parametrize("rows", [10, 64, 100, 5000])
def test_steps_are_about_the_same_for_any_number_of_rows(rows: int) -> None:
    steps = epochs_of(800, rows, 64) * -(-rows // 64)
    assert steps == pytest.approx(800, rel=0.05)


def test_without_labels_there_is_nothing_to_learn(cell: Project, tmp_path: Path) -> None:
    for split, rows in splits_of(cell[0]).items():
        replace(rows, labels=None, label_names=None).save(tmp_path / "artefacts/data" / split)
    augment("40", cell[1], tmp_path, 0)
    assert "accuracy" not in read_json(tmp_path / FILES[1])
    assert load_cells(tmp_path / "artefacts/augmentation") == []
