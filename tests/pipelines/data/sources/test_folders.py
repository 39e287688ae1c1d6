"""Existing data: published PolyMNIST folders, and dataset folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources.folders import read_folders, read_polymnist
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality


def write_polymnist(folder: Path, samples: int) -> None:
    """Write images of 4 × 4 whose red encodes the sample, green the modality and blue the label."""
    for column in range(5):
        (folder / f"m{column}").mkdir(parents=True)
        for row in range(samples):
            image = Image.new("RGB", (4, 4), (row, column, row % 10))
            image.save(folder / f"m{column}" / f"{row}.{row % 10}.png")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    write_polymnist(tmp_path / "MMNIST/train", 40)
    write_polymnist(tmp_path / "MMNIST/test", 11)
    return tmp_path


def check_rows(dataset: Dataset) -> np.ndarray:
    """Check that each modality of each row is the right image; return the numbers of the samples."""
    numbers = np.rint(dataset.data["m0"][:, 0, 0, 0] * 255).astype(int)
    for column, (name, array) in enumerate(dataset.data.items()):
        assert name == f"m{column}"
        colours = np.rint(array[:, :, 0, 0] * 255).astype(int)
        np.testing.assert_array_equal(colours[:, 0], numbers)
        np.testing.assert_array_equal(colours[:, 1], column)
        np.testing.assert_array_equal(colours[:, 2], dataset.labels)
    return numbers


def test_published_folders_are_read(published: Path) -> None:
    splits = read_polymnist(0, published, "MMNIST", validation_share=0.25)
    assert {split: len(dataset) for split, dataset in splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 11,
    }
    train, validation = check_rows(splits["train"]), check_rows(splits["validation"])
    assert sorted([*train, *validation]) == list(range(40))
    np.testing.assert_array_equal(check_rows(splits["test"]), np.arange(11))
    assert splits["test"].ids is not None
    assert splits["test"].ids[10] == "test-10"
    for split, dataset in splits.items():
        dataset.save(published / "data" / split)
        assert Dataset.load(published / "data" / split).modalities == splits["train"].modalities
        assert np.load(published / "data" / split / "m0.npy").dtype == np.uint8


def test_a_validation_folder_is_used(published: Path) -> None:
    write_polymnist(published / "MMNIST/validation", 6)
    splits = read_polymnist(0, published, "MMNIST")
    assert {split: len(dataset) for split, dataset in splits.items()} == {
        "train": 40,
        "validation": 6,
        "test": 11,
    }


def test_the_number_of_samples_can_be_limited(published: Path) -> None:
    splits = read_polymnist(0, published, "MMNIST", samples=20, validation_share=0.5)
    assert {split: len(dataset) for split, dataset in splits.items()} == {
        "train": 10,
        "validation": 10,
        "test": 11,
    }


def other_size(folder: Path) -> None:
    Image.new("RGB", (4, 5)).save(folder / "test/m2/3.3.png")


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (lambda folder: folder.rename(folder.with_name("gone")), "m0: no PNG files found"),
    "a strange name": (
        lambda folder: (folder / "train/m0/five.png").touch(),
        r"five\.png: .* expected a name such as 17\.5\.png",
    ),
    "a missing image": (
        lambda folder: (folder / "test/m3/4.4.png").unlink(),
        r"m3/4\.4\.png: this image is missing",
    ),
    "a broken image": (
        lambda folder: (folder / "test/m3/4.4.png").write_bytes(b"x"),
        r"4\.4\.png: this image cannot be read",
    ),
    "another size": (other_size, r"3\.3\.png: shape \(3, 5, 4\) found, expected \(3, 4, 4\)"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_published_folders_are_refused(published: Path, case: str) -> None:
    spoil, sentence = SPOILED[case]
    spoil(published / "MMNIST")
    with pytest.raises(UserError, match=sentence):
        read_polymnist(0, published, "MMNIST", validation_share=0.25)


def small() -> Dataset:
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    return Dataset((Modality("a", "vector", (2,), "normal"),), {"a": values})


def test_dataset_folders_are_read(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        small().save(tmp_path / "mine" / split)
    splits = read_folders(0, tmp_path, "mine")
    assert list(splits) == ["train", "validation", "test"]
    np.testing.assert_array_equal(splits["test"].data["a"], small().data["a"])


def test_a_missing_split_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path / "mine/train")
    with pytest.raises(UserError, match=r"validation.manifest\.json: no such file"):
        read_folders(0, tmp_path, "mine")


def test_splits_of_other_modalities_are_refused(tmp_path: Path) -> None:
    other = replace(small(), modalities=(Modality("a", "vector", (2,), "normal", (0, 10)),))
    for split, dataset in (("train", small()), ("validation", small()), ("test", other)):
        dataset.save(tmp_path / "mine" / split)
    with pytest.raises(UserError, match="test: modalities: other values found than in train"):
        read_folders(0, tmp_path, "mine")
